"""Recurrent networks: cells, memories, attention, state spaces, frames."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import (
    Case,
    Draw,
    Made,
    integers,
    joined,
    made,
    normal,
    uniform,
    zeros,
)

Pair = tuple[Tensor, Tensor]


class GRUWithHead(nn.Module):
    """torch.nn.GRUCell with a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = self.cell(x, h)
        return self.head(h), h


def make_gru_cell() -> Made:
    torch.manual_seed(0)
    return made(GRUWithHead(), normal((5,)), zeros(16))


class LSTMStack(nn.Module):
    """Three torch.nn.LSTMCells with residual connections."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(12, 12) for _ in range(3))

    def forward(self, x: Tensor, state: tuple[Pair, ...]) -> tuple[Tensor, tuple[Pair, ...]]:
        after = []
        for cell, pair in zip(self.cells, state, strict=True):
            h, c = cell(x, pair)
            x = x + h
            after.append((h, c))
        return x, tuple(after)


def make_lstm_cells() -> Made:
    torch.manual_seed(0)
    state = tuple((zeros(12), zeros(12)) for _ in range(3))
    return made(LSTMStack(), normal((12,)), state)


class ElmanCells(nn.Module):
    """torch.nn.RNNCells, one with tanh and one with ReLU, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.RNNCell(4, 10, bias=False)
        self.second = nn.RNNCell(10, 8, nonlinearity="relu")

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        first = self.first(x, state[0])
        second = self.second(first, state[1])
        return second, (first, second)


def make_rnn_cells() -> Made:
    torch.manual_seed(0)
    return made(ElmanCells(), normal((4,)), (zeros(10), zeros(8)))


def sequences(size: int, batch_first: bool = False) -> Draw:
    """Draws a single step of a sequence, as torch.nn.LSTM wants it."""

    def draw(rng: np.random.Generator, batch: int) -> tuple[Tensor]:
        shape = (batch, 1, size) if batch_first else (1, batch, size)
        return (torch.from_numpy(np.float32(rng.normal(size=shape))),)

    return draw


def make_torch_lstm_of_two_layers() -> Made:
    """torch.nn.LSTM itself."""
    torch.manual_seed(0)
    state = (torch.zeros(2, 8, 16), torch.zeros(2, 8, 16))
    return made(nn.LSTM(6, 16, num_layers=2), sequences(6), state)


def make_torch_gru_batch_first() -> Made:
    """torch.nn.GRU itself, with dropout between its layers and inputs [B, 1, I]."""
    torch.manual_seed(0)
    module = nn.GRU(5, 12, num_layers=3, dropout=0.2, batch_first=True)
    return made(module, sequences(5, batch_first=True), torch.zeros(3, 8, 12))


def make_torch_rnn_with_relu() -> Made:
    """torch.nn.RNN itself, with ReLU and no biases."""
    torch.manual_seed(0)
    return made(nn.RNN(5, 12, nonlinearity="relu", bias=False), sequences(5), torch.zeros(1, 8, 12))


def make_torch_lstm_with_projection() -> Made:
    """torch.nn.LSTM itself, whose two states have different sizes."""
    torch.manual_seed(0)
    state = (torch.zeros(2, 8, 5), torch.zeros(2, 8, 16))
    return made(nn.LSTM(6, 16, num_layers=2, proj_size=5), sequences(6), state)


class StepOfLSTM(nn.Module):
    """One step of a two-layer torch.nn.LSTM between linear layers; state [layers, B, hidden]."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 6)
        self.lstm = nn.LSTM(6, 12, num_layers=2, **arguments)
        self.head = nn.Linear(arguments.get("proj_size", 12), 2)

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        y, state = self.lstm(self.encoder(x)[None], state)
        return self.head(y[0]), state


def make_lstm_of_two_layers() -> Made:
    torch.manual_seed(0)
    state = (torch.zeros(2, 8, 12), torch.zeros(2, 8, 12))
    return made(StepOfLSTM(dropout=0.1), normal((4,)), state, batch_axis=1)


def make_lstm_with_projection() -> Made:
    torch.manual_seed(0)
    state = (torch.zeros(2, 8, 5), torch.zeros(2, 8, 12))
    return made(StepOfLSTM(proj_size=5), normal((4,)), state, batch_axis=(1, 1))


class LayerNormLSTM(nn.Module):
    """An LSTM with layer normalisation of its gates and its cell state."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(6, 64, bias=False), nn.Linear(16, 64, bias=False)
        self.norm_x, self.norm_h, self.norm_c = (
            nn.LayerNorm(64),
            nn.LayerNorm(64),
            nn.LayerNorm(16),
        )
        nn.init.constant_(self.norm_h.weight, 0.3)  # with 1 it is chaotic before it is trained

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        h, c = state
        i, f, g, o = (self.norm_x(self.x(x)) + self.norm_h(self.h(h))).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * self.norm_c(c).tanh()
        return h, (h, c)


def make_layer_norm_lstm() -> Made:
    torch.manual_seed(0)
    return made(LayerNormLSTM(), normal((6,)), (zeros(16), zeros(16)))


class ConvGRU(nn.Module):
    """A convolutional GRU over frames of 6×7 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 + 4, 8, 3, padding=1)
        self.candidate = nn.Conv2d(2 + 4, 4, 3, padding=1, padding_mode="replicate")

    def forward(self, frame: Tensor, h: Tensor) -> Pair:
        z, r = self.gates(torch.cat((frame, h), 1)).sigmoid().chunk(2, 1)
        new = self.candidate(torch.cat((frame, r * h), 1)).tanh()
        h = (1 - z) * h + z * new
        return h.mean((2, 3)), h


def make_conv_gru() -> Made:
    torch.manual_seed(0)
    return made(ConvGRU(), normal((2, 6, 7)), zeros(4, 6, 7))


class ConvLSTM(nn.Module):
    """A convolutional LSTM with peephole connections and group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1 + 4, 16, 3, padding="same"), nn.GroupNorm(4, 16)
        self.peep = nn.Parameter(torch.randn(3, 4, 6, 6) * 0.1)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, frame: Tensor, state: dict[str, Tensor]) -> Any:
        h, c = state["h"], state["c"]
        i, f, g, o = torch.split(self.norm(self.conv(torch.cat((frame, h), 1))), 4, dim=1)
        c = (f + self.peep[0] * c).sigmoid() * c + (i + self.peep[1] * c).sigmoid() * g.tanh()
        h = (o + self.peep[2] * c).sigmoid() * c.tanh()
        return self.head(h), {"h": h, "c": c}


def make_conv_lstm() -> Made:
    torch.manual_seed(0)
    state = {"h": zeros(4, 6, 6), "c": zeros(4, 6, 6)}
    return made(ConvLSTM(), normal((1, 6, 6)), state)


class CacheState(NamedTuple):
    keys: Tensor  # [B, 6, 2, 8]
    values: Tensor  # [B, 6, 2, 8]
    position: Tensor  # [B], int64


class RingAttention(nn.Module):
    """Attention of two heads over the last six tokens, in a ring whose position is in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor, state: CacheState) -> tuple[Tensor, CacheState]:
        q, k, v = self.qkv(x).view(-1, 3, 2, 8).unbind(1)
        slots = torch.arange(6)
        here = (slots == state.position[:, None] % 6)[:, :, None, None]
        keys = torch.where(here, k[:, None], state.keys)
        values = torch.where(here, v[:, None], state.values)
        scores = torch.einsum("bhd,bthd->bht", q, keys) / math.sqrt(8)
        unseen = slots > state.position[:, None]
        weights = scores.masked_fill(unseen[:, None], -torch.inf).softmax(-1)
        y = torch.einsum("bht,bthd->bhd", weights, values).reshape(-1, 16)
        return x + self.out(y), CacheState(keys, values, state.position + 1)


def make_attention_over_a_ring() -> Made:
    torch.manual_seed(0)
    state = CacheState(zeros(6, 2, 8), zeros(6, 2, 8), zeros(dtype=torch.int64))
    return made(RingAttention(), normal((16,)), state)


class RotaryAttention(nn.Module):
    """Attention over a rolling window with rotary angles of the absolute position."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.register_buffer("frequencies", 100.0 ** (-torch.arange(6) / 6))

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        angle = (state["position"] % 512)[:, None] * self.frequencies
        cosine, sine = angle.cos(), angle.sin()
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = self._rotate(q, cosine, sine), self._rotate(k, cosine, sine)
        keys = torch.cat((state["keys"][:, 1:], k[:, None]), 1)
        values = torch.cat((state["values"][:, 1:], v[:, None]), 1)
        scores = (keys @ q[..., None]).squeeze(-1) * 12**-0.5
        y = (scores.softmax(-1)[:, None] @ values).squeeze(1)
        return self.out(y), {"keys": keys, "values": values, "position": state["position"] + 1}

    @staticmethod
    def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cosine - b * sine, a * sine + b * cosine), -1).flatten(-2)


def make_rotary_attention() -> Made:
    torch.manual_seed(0)
    state = {"keys": zeros(5, 12), "values": zeros(5, 12), "position": zeros(dtype=torch.int64)}
    return made(RotaryAttention(), normal((12,)), state)


class LinearAttention(nn.Module):
    """Linear attention (Katharopoulos): sums of outer products, and their normaliser."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 12)

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        q = F.elu(self.q(x).view(-1, 3, 4)) + 1
        k = F.elu(self.k(x).view(-1, 3, 4)) + 1
        v = self.v(x).view(-1, 3, 4)
        memory = state[0] + k.unsqueeze(-1) * v.unsqueeze(-2)
        total = state[1] + k
        top = torch.einsum("bhk,bhkv->bhv", q, memory)
        return (top / (q * total).sum(-1, keepdim=True)).flatten(1), (memory, total)


def make_linear_attention() -> Made:
    torch.manual_seed(0)
    return made(LinearAttention(), normal((8,)), (zeros(3, 4, 4), zeros(3, 4)))


class DeltaRule(nn.Module):
    """Fast weights with a delta rule and a forget gate."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.rates = nn.Linear(8, 24), nn.Linear(8, 2)

    def forward(self, x: Tensor, memory: Tensor) -> Pair:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = F.normalize(q, dim=-1), F.normalize(F.silu(k), dim=-1)
        forget, write = self.rates(x).sigmoid().unsqueeze(-1).unbind(1)
        memory = memory * forget[:, :, None]
        error = v - torch.bmm(memory, k[..., None])[..., 0]
        memory = torch.baddbmm(memory, (write * error)[..., None], k[:, None])
        return torch.matmul(memory, q.unsqueeze(-1)).squeeze(-1), memory


def make_delta_rule() -> Made:
    torch.manual_seed(0)
    return made(DeltaRule(), normal((8,)), zeros(8, 8))


class DiagonalStateSpace(nn.Module):
    """A diagonal state space (S4D) in real pairs [B, channels, modes, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.log_decay = nn.Parameter(torch.log(torch.rand(4, 6) * 0.5 + 0.05))
        self.angle = nn.Parameter(torch.rand(4, 6) * math.pi)
        self.c, self.d = nn.Parameter(torch.randn(4, 6, 2) * 0.3), nn.Parameter(torch.randn(4))
        self.mix = nn.Linear(4, 8)

    def forward(self, x: Tensor, state: Tensor) -> Pair:
        radius = torch.exp(-self.log_decay.exp())
        a, b = radius * self.angle.cos(), radius * self.angle.sin()
        real, imaginary = state[..., 0], state[..., 1]
        state = torch.stack(
            (a * real - b * imaginary + x[:, :, None], a * imaginary + b * real), -1
        )
        y = 2 * (self.c * state).sum((-1, -2)) + self.d * x
        return F.glu(self.mix(F.gelu(y)), -1), state


def make_diagonal_state_space() -> Made:
    torch.manual_seed(0)
    return made(DiagonalStateSpace(), normal((4,)), zeros(4, 6, 2))


class Selective(nn.Module):
    """A Mamba block: a short convolution, and a state space whose steps depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 16, bias=False), nn.Linear(8, 6, bias=False)
        self.conv = nn.Parameter(torch.randn(8, 4) * 0.4)
        self.parameters_of_x, self.dt = nn.Linear(8, 2 + 8, bias=False), nn.Linear(2, 8)
        self.log_a = nn.Parameter(torch.log(torch.arange(1.0, 5.0)).repeat(8, 1))
        self.d = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        u, gate = self.into(x).chunk(2, -1)
        conv = torch.cat((state["conv"][..., 1:], u.unsqueeze(-1)), -1)
        u = F.silu((conv * self.conv).sum(-1))
        dt, b, c = self.parameters_of_x(u).split((2, 4, 4), -1)
        dt = F.softplus(self.dt(dt)).unsqueeze(-1)
        decay = torch.exp(dt * -self.log_a.exp())
        ssm = decay * state["ssm"] + dt * u.unsqueeze(-1) * b.unsqueeze(1)
        y = torch.einsum("bdn,bn->bd", ssm, c) + self.d * u
        return x + self.out(y * F.silu(gate)), {"conv": conv, "ssm": ssm}


def make_selective_state_space() -> Made:
    torch.manual_seed(0)
    return made(Selective(), normal((6,)), {"conv": zeros(8, 4), "ssm": zeros(8, 4)})


class SoftExperts(nn.Module):
    """A GRU whose output four experts compute, mixed by a softmax gate."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.gate = nn.GRUCell(5, 12), nn.Linear(12, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 8), nn.GELU(approximate="tanh"), nn.Linear(8, 3))
            for _ in range(4)
        )

    def forward(self, x: Tensor, h: Tensor) -> tuple[Pair, Tensor]:
        h = self.cell(x, h)
        gate = self.gate(h).softmax(-1)
        results = torch.stack([expert(h) for expert in self.experts], -1)
        return ((results * gate[:, None]).sum(-1), gate), h


def make_mixture_of_experts() -> Made:
    torch.manual_seed(0)
    return made(SoftExperts(), normal((5,)), zeros(12))


class TopExperts(nn.Module):
    """The two best of six experts, whose weights each row gathers."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.gate = nn.GRUCell(5, 12), nn.Linear(12, 6)
        self.experts = nn.Parameter(torch.randn(6, 12, 4) * 0.3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        h = self.cell(x, h)
        scores, chosen = torch.topk(self.gate(h), 2, dim=-1)
        results = torch.einsum("bi,bkio->bko", h, self.experts[chosen])
        return ((results * scores.softmax(-1)[..., None]).sum(1), chosen), h


def make_top_two_of_six_experts() -> Made:
    torch.manual_seed(0)
    return made(TopExperts(), normal((5,)), zeros(12), output_names=["y", "experts"])


class RollingTransformer(nn.Module):
    """A transformer block over a cache of the last six tokens, masked until it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.RMSNorm(16)
        self.qkv, self.out = nn.Linear(16, 48, bias=False), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(32, 16)

    def forward(self, token: Tensor, state: dict[str, Any]) -> Any:
        x = self.embedding(token)
        q, k, v = self.qkv(self.norm1(x)).view(-1, 3, 4, 4).unbind(1)
        keys = torch.cat((state["kv"]["k"][:, :, 1:], k[:, :, None]), 2)
        values = torch.cat((state["kv"]["v"][:, :, 1:], v[:, :, None]), 2)
        length = (state["length"] + 1).clamp(max=6)
        mask = torch.arange(6) >= (6 - length)[:, None]
        y = F.scaled_dot_product_attention(q[:, :, None], keys, values, mask[:, None, None])
        x = x + self.out(y.flatten(1))
        a, b = self.up(self.norm2(x)).chunk(2, -1)
        x = x + self.down(F.silu(a) * b)
        return x @ self.embedding.weight.T, {"kv": {"k": keys, "v": values}, "length": length}


def make_transformer_with_rolling_cache() -> Made:
    torch.manual_seed(0)
    state = {
        "kv": {"k": zeros(4, 6, 4), "v": zeros(4, 6, 4)},
        "length": zeros(dtype=torch.int64),
    }
    return made(RollingTransformer(), integers((), high=20), state)


class EncoderOverWindow(nn.Module):
    """torch.nn.TransformerEncoder over a window of the last five inputs."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 4, 24, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.positions, self.head = nn.Parameter(torch.randn(5, 12) * 0.1), nn.Linear(12, 2)

    def forward(self, x: Tensor, window: Tensor) -> Pair:
        window = torch.cat((window[:, 1:], x[:, None]), 1)
        return self.head(self.encoder(window + self.positions)[:, -1]), window


def make_transformer_encoder_over_a_window() -> Made:
    torch.manual_seed(0)
    return made(EncoderOverWindow(), normal((12,)), zeros(5, 12))


class MultiheadMemory(nn.Module):
    """torch.nn.MultiheadAttention from a GRU's state over a memory of its last four states."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: Tensor, state: Pair) -> tuple[Pair, Pair]:
        h = self.cell(x, state[0])
        memory = torch.cat((state[1][:, 1:], h[:, None]), 1)
        y, weights = self.attention(h[:, None], memory, memory)
        return (y[:, 0], weights[:, 0]), (h, memory)


def make_multihead_attention_over_states() -> Made:
    torch.manual_seed(0)
    return made(MultiheadMemory(), normal((4,)), (zeros(12), zeros(4, 12)))


class Highway(nn.Module):
    """A recurrent highway network of depth three with coupled gates."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Linear(5, 24)
        self.layers = nn.ModuleList(nn.Linear(12, 24) for _ in range(3))

    def forward(self, x: Tensor, s: Tensor) -> Pair:
        for depth, layer in enumerate(self.layers):
            both = layer(s) + (self.x(x) if depth == 0 else 0)
            h, t = both.tensor_split(2, dim=-1)
            t = torch.sigmoid(t - 1)
            s = h.tanh() * t + s * (1 - t)
        return s, s


def make_highway_network() -> Made:
    torch.manual_seed(0)
    return made(Highway(), normal((5,)), zeros(12))


class MultiplicativeLSTM(nn.Module):
    """A multiplicative LSTM over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.mx, self.mh = nn.Linear(8, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.x, self.m = nn.Linear(8, 64), nn.Linear(16, 64, bias=False)
        self.head = nn.Linear(16, 30)

    def forward(self, token: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        x = self.embedding(token)
        m = self.mx(x) * self.mh(state[0])
        i, f, o, g = (self.x(x) + self.m(m)).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return self.head(h), (h, c)


def make_multiplicative_lstm() -> Made:
    torch.manual_seed(0)
    return made(MultiplicativeLSTM(), integers((), high=30), (zeros(16), zeros(16)))


class FloatIndices(nn.Module):
    """Clicks as rows of floats: an item number, a category number, and a duration."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.kinds = nn.Embedding(50, 8), nn.Embedding(5, 3)
        self.cell = nn.GRUCell(12, 16)

    def forward(self, click: Tensor, h: Tensor) -> Pair:
        item, kind = self.items(click[:, 0].long()), self.kinds(click[:, 1].to(torch.int32))
        h = self.cell(torch.cat((item, kind, torch.log1p(click[:, 2:])), -1), h)
        return h[:, :8] @ self.items.weight.T, h


def clicks(rng: np.random.Generator, batch: int) -> tuple[Tensor]:
    columns = (
        rng.integers(0, 50, batch),
        rng.integers(0, 5, batch),
        rng.exponential(30, batch),
    )
    return (torch.from_numpy(np.float32(np.stack(columns, 1))),)


def make_embedding_of_indices_in_floats() -> Made:
    torch.manual_seed(0)
    return made(FloatIndices(), clicks, zeros(16), inputs=clicks)


class Deep(nn.Module):
    """120 GRU cells on top of each other, with residual connections."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.GRUCell(4, 4) for _ in range(120))

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        after = []
        for cell, h in zip(self.cells, state, strict=True):
            after.append(cell(x, h))
            x = 0.9 * x + 0.1 * after[-1]
        return x, tuple(after)


def make_120_layers() -> Made:
    torch.manual_seed(0)
    return made(Deep(), normal((4,)), tuple(zeros(4) for _ in range(120)))


class Video(nn.Module):
    """Convolutions, pooling and a GRU over small colour frames in uint8."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.Hardswish(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 12, 3, padding=1, groups=3),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.cell, self.head = nn.GRUCell(12, 16), nn.Linear(16, 4)

    def forward(self, frame: Tensor, h: Tensor) -> Pair:
        x = frame.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)
        h = self.cell(self.body(x), h)
        return self.head(h), h


def make_pooled_frames() -> Made:
    torch.manual_seed(0)
    return made(Video(), integers((12, 12, 3), high=256, dtype=torch.uint8), zeros(16))


class Upsampler(nn.Module):
    """Super-resolution of frames by a transposed convolution, with the last result fed back."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 2, stride=2)
        self.body = nn.Conv2d(1 + 4, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 1, 4, stride=2, padding=1)

    def forward(self, frame: Tensor, last: Tensor) -> Pair:
        x = torch.cat((frame, self.down(last)), 1)
        y = torch.sigmoid(self.up(F.leaky_relu(self.body(x), 0.1)))
        return y, y


def make_transposed_convolution() -> Made:
    torch.manual_seed(0)
    return made(Upsampler(), uniform((1, 5, 5)), zeros(1, 10, 10))


class TwoScales(nn.Module):
    """A convolutional recurrence at two scales, joined by interpolation and average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = (
            nn.Conv2d(1 + 3 + 3, 3, 3, padding=1),
            nn.Conv2d(6, 3, 3, padding=1),
        )

    def forward(self, frame: Tensor, state: dict[str, Tensor]) -> Any:
        pooled = F.avg_pool2d(state["fine"], 2)
        coarse = torch.tanh(self.coarse(torch.cat((pooled, state["coarse"]), 1)))
        up = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        fine = torch.tanh(self.fine(torch.cat((frame, state["fine"], up), 1)))
        thumbnail = F.interpolate(fine, size=(3, 3), mode="nearest")
        return {"fine": fine, "thumbnail": thumbnail}, {"fine": fine, "coarse": coarse}


def make_two_scales_with_interpolation() -> Made:
    torch.manual_seed(0)
    state = {"fine": zeros(3, 6, 6), "coarse": zeros(3, 3, 3)}
    return made(TwoScales(), uniform((1, 6, 6)), state)


class PixelShuffle(nn.Module):
    """Recurrent super-resolution by pixel shuffle, over the unshuffled last result."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.up = nn.Conv2d(1 + 4, 4, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, frame: Tensor, last: Tensor) -> Pair:
        x = torch.cat((frame, F.pixel_unshuffle(last, 2)), 1)
        y = self.up(torch.tanh(self.body(x)))
        return y, y


def make_pixel_shuffle() -> Made:
    torch.manual_seed(0)
    return made(PixelShuffle(), uniform((1, 4, 4)), zeros(1, 8, 8))


class OpticalWarp(nn.Module):
    """Warps the last frame along a flow by grid_sample, and blends it with the next."""

    def forward(self, frame: Tensor, flow: Tensor, last: Tensor) -> Pair:
        axis = torch.linspace(-1, 1, 6)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        grid = torch.stack((x, y), -1) + flow
        warped = F.grid_sample(last, grid, mode="bilinear", align_corners=True)
        blended = 0.7 * warped + 0.3 * frame
        return blended, blended


def make_warp_by_grid_sample() -> Made:
    def fresh(rng: np.random.Generator, batch: int) -> tuple[Tensor, Tensor]:
        return (*uniform((1, 6, 6))(rng, batch), *normal((6, 6, 2), spread=0.1)(rng, batch))

    return made(OpticalWarp(), fresh, zeros(1, 6, 6))


class BilinearHeads(nn.Module):
    """A recurrence of three heads in which input and state are multiplied, by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Parameter(torch.randn(3, 4, 5, 5) * 0.1)
        self.mix = nn.Parameter(torch.eye(3) * 0.8 + 0.05)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = torch.einsum("hkij,bk,bhj->bhi", self.core, x, h) + 0.5
        h = torch.einsum("gh,bhi->bgi", self.mix, h).tanh()
        return torch.einsum("bhi,bhi->bh", h, h), h


def make_bilinear_heads_by_einsum() -> Made:
    torch.manual_seed(0)
    return made(BilinearHeads(), normal((4,)), zeros(3, 5))


class OrderedNeurons(nn.Module):
    """An ordered-neurons LSTM: master gates by a cumulative sum of a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(5, 60), nn.Linear(10, 60, bias=False)

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        h, c = state
        f, i, o, g, mf, mi = (self.x(x) + self.h(h)).chunk(6, -1)
        mf = torch.cumsum(mf.softmax(-1), -1)
        mi = 1 - torch.cumsum(mi.softmax(-1), -1)
        both = mf * mi
        c = (f.sigmoid() * both + mf - both) * c + (i.sigmoid() * both + mi - both) * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, (h, c)


def make_ordered_neurons_by_cumsum() -> Made:
    torch.manual_seed(0)
    return made(OrderedNeurons(), normal((5,)), (zeros(10), zeros(10)))


class UserTotals(nn.Module):
    """Adds amounts to accounts by scatter_add, several to one account, and fades old ones."""

    def forward(self, accounts: Tensor, amounts: Tensor, totals: Tensor) -> Pair:
        totals = (0.99 * totals).scatter_add(1, accounts, amounts)
        return totals.gather(1, accounts), totals


def make_scatter_add_into_the_state() -> Made:
    fresh = joined(integers((4,), high=10), normal((4,), mean=2))
    return made(UserTotals(), fresh, zeros(10), input_names=["accounts", "amounts"])


class Tape(nn.Module):
    """Reads a tape at a head that the input moves, writes there by scatter, both in the state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3 + 4, 4)

    def forward(self, x: Tensor, move: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        tape, head = state
        head = (head + move - 1).clamp(0, 7)
        index = head[:, None, None].expand(-1, 1, 4)
        read = torch.gather(tape, 1, index).squeeze(1)
        written = self.cell(torch.cat((x, read), -1), read)
        return read, (torch.scatter(tape, 1, index, written[:, None]), head)


def make_tape_with_gather_and_scatter() -> Made:
    torch.manual_seed(0)
    fresh = joined(normal((3,)), integers((), high=3))
    return made(Tape(), fresh, (zeros(8, 4), zeros(dtype=torch.int64)))


class NextItem(nn.Module):
    """Counts transitions between six items in a matrix, by one_hot, and predicts the next."""

    def forward(self, item: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        counts, last = state
        here = F.one_hot(last, 6).unsqueeze(2) * F.one_hot(item, 6).unsqueeze(1)
        counts = counts + here
        row = counts[torch.arange(counts.shape[0]), item]
        return (row + 1) / (row.sum(-1, keepdim=True) + 6), (counts, item)


def make_transition_counts_by_one_hot() -> Made:
    state = (zeros(6, 6, dtype=torch.int64), zeros(dtype=torch.int64))
    return made(NextItem(), integers((), high=6), state)


class TuringMachine(nn.Module):
    """A neural Turing machine: content addressing, circular shifts and sharpening."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4 + 6, 16)
        self.controls = nn.Linear(16, 6 + 1 + 1 + 3 + 1 + 6 + 6)

    def forward(self, x: Tensor, state: dict[str, Any]) -> Any:
        memory, weights = state["memory"], state["weights"]
        read = torch.bmm(weights[:, None], memory).squeeze(1)
        h, c = self.cell(torch.cat((x, read), -1), state["controller"])
        key, beta, gate, shift, gamma, erase, add = self.controls(h).split(
            (6, 1, 1, 3, 1, 6, 6), -1
        )
        similarity = F.cosine_similarity(memory, key[:, None].tanh(), dim=-1)
        content = (F.softplus(beta) * similarity).softmax(-1)
        weights = torch.lerp(weights, content, gate.sigmoid())
        shift = shift.softmax(-1)
        weights = sum(shift[:, i, None] * weights.roll(i - 1, dims=1) for i in range(3))
        weights = (weights + 1e-6) ** (1 + F.softplus(gamma))
        weights = weights / weights.sum(-1, keepdim=True)
        memory = memory * (1 - weights[..., None] * erase.sigmoid()[:, None])
        memory = memory + weights[..., None] * add.tanh()[:, None]
        return read, {"memory": memory, "weights": weights, "controller": (h, c)}


def make_neural_turing_machine() -> Made:
    torch.manual_seed(0)
    state = {
        "memory": torch.full((8, 5, 6), 0.1),
        "weights": torch.full((8, 5), 0.2),
        "controller": (zeros(16), zeros(16)),
    }
    return made(TuringMachine(), normal((4,)), state)


class Stack(nn.Module):
    """A neural stack: a softmax over push, pop and stay moves its cells up and down."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.action, self.value = nn.GRUCell(7, 12), nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        h, stack = state
        h = self.cell(torch.cat((x, stack[:, 0]), -1), h)
        push, pop, stay = self.action(h).softmax(-1)[:, :, None, None].unbind(1)
        down = torch.cat((self.value(h).sigmoid()[:, None], stack[:, :-1]), 1)
        up = F.pad(stack[:, 1:], (0, 0, 0, 1))
        return stack[:, 0], (h, push * down + pop * up + stay * stack)


def make_neural_stack() -> Made:
    torch.manual_seed(0)
    return made(Stack(), normal((4,)), (zeros(12), zeros(6, 3)))


class MinimalGRU(nn.Module):
    """A minGRU in the logarithmic form of its paper."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.candidate = nn.Linear(6, 12), nn.Linear(6, 12)

    def forward(self, x: Tensor, log_h: Tensor) -> Pair:
        k, c = self.gate(x), self.candidate(x)
        log_c = torch.where(c >= 0, (F.relu(c) + 0.5).log(), F.logsigmoid(c))
        log_h = torch.logaddexp(F.logsigmoid(-k) + log_h, F.logsigmoid(k) + log_c)
        return log_h.exp(), log_h


def make_minimal_gru_in_logarithms() -> Made:
    torch.manual_seed(0)
    return made(MinimalGRU(), normal((6,)), torch.full((8, 12), math.log(0.5)))


class LogSumExpPool(nn.Module):
    """Counts paths through a chain of tags (a conditional random field's forward pass)."""

    def __init__(self) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.randn(4, 4) * 0.5)

    def forward(self, emission: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        alpha = torch.logsumexp(state[0][:, :, None] + self.transitions, 1) + emission
        scores, back = (state[1][:, :, None] + self.transitions).max(1)
        best = scores + emission
        total = torch.logsumexp(alpha, -1, keepdim=True)
        shift = best.max(-1, keepdim=True).values
        return {"normaliser": total.squeeze(1), "back": back}, (alpha - total, best - shift)


def make_conditional_random_field() -> Made:
    torch.manual_seed(0)
    return made(LogSumExpPool(), normal((4,)), (zeros(4), zeros(4)))


class Reservoir(nn.Module):
    """A leaky echo-state network with a fixed sparse reservoir of radius 0.9."""

    def __init__(self) -> None:
        super().__init__()
        w = torch.randn(30, 30) * (torch.rand(30, 30) < 0.2)
        self.register_buffer("w", w * 0.9 / torch.linalg.eigvals(w).abs().max())
        self.register_buffer("w_in", torch.rand(30, 3) * 2 - 1)
        self.readout = nn.Linear(33, 2)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        h = 0.7 * h + 0.3 * torch.tanh(F.linear(x, self.w_in) + F.linear(h, self.w))
        return self.readout(torch.hstack((x, h))), h


def make_echo_state_network() -> Made:
    torch.manual_seed(0)
    return made(Reservoir(), normal((3,)), zeros(30))


class PhasedLSTM(nn.Module):
    """A phased LSTM: each unit is open in a part of its own period; time in float64 seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 10)
        self.register_buffer("period", torch.linspace(1, 20, 10).double())
        self.register_buffer("shift", torch.rand(10).double())

    def forward(self, x: Tensor, elapsed: Tensor, state: dict[str, Tensor]) -> Any:
        time = state["time"] + elapsed.double()
        phase = torch.fmod(time[:, None] - self.shift + 20, self.period) / self.period
        rises, falls = 2 * phase / 0.4, 2 - 2 * phase / 0.4
        gate = torch.where(phase < 0.2, rises, torch.where(phase < 0.4, falls, 0.001 * phase))
        gate = gate.float()
        h, c = self.cell(x, (state["h"], state["c"]))
        h, c = gate * h + (1 - gate) * state["h"], gate * c + (1 - gate) * state["c"]
        return h, {"h": h, "c": c, "time": time}


def make_phased_lstm() -> Made:
    torch.manual_seed(0)
    state = {"h": zeros(10), "c": zeros(10), "time": zeros(dtype=torch.float64)}
    fresh = joined(normal((3,)), uniform((), low=0.05, high=0.5))
    return made(PhasedLSTM(), fresh, state)


class Clockwork(nn.Module):
    """A clockwork RNN of four modules with periods 1, 2, 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(4, 12)
        self.register_buffer("period", torch.tensor([1, 2, 4, 8]).repeat_interleave(3))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        h, step = state
        active = torch.remainder(step[:, None], self.period) == 0
        h = torch.where(active, self.cell(x, h), h)
        return h, (h, step + 1)


def make_clockwork_rnn() -> Made:
    torch.manual_seed(0)
    return made(Clockwork(), normal((4,)), (zeros(12), zeros(dtype=torch.int64)))


class Spiking(nn.Module):
    """Leaky integrate-and-fire neurons with recurrent spikes and an adaptive threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.recurrent, self.out = (
            nn.Linear(4, 10),
            nn.Linear(10, 10, bias=False),
            nn.Linear(10, 2),
        )

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        current = self.into(x) + self.recurrent(state["spikes"].to(x.dtype))
        potential = 0.9 * state["potential"] + current
        spikes = potential > 1 + 0.2 * state["fatigue"]
        potential = torch.where(spikes, potential - 1, potential)
        fatigue = 0.95 * state["fatigue"] + spikes
        readout = 0.8 * state["readout"] + self.out(spikes.float())
        return readout, {
            "potential": potential,
            "spikes": spikes,
            "fatigue": fatigue,
            "readout": readout,
        }


def make_spiking_neurons() -> Made:
    torch.manual_seed(0)
    state = {
        "potential": zeros(10),
        "spikes": zeros(10, dtype=torch.bool),
        "fatigue": zeros(10),
        "readout": zeros(2),
    }
    return made(Spiking(), normal((4,)), state, double=False)


class GraphRNN(nn.Module):
    """A GRU on each of six nodes, with messages along a fixed weighted graph."""

    def __init__(self) -> None:
        super().__init__()
        edges = (torch.rand(6, 6) < 0.4).float() + torch.eye(6)
        self.register_buffer("adjacency", edges / edges.sum(1, keepdim=True))
        self.message, self.cell = nn.Linear(8, 8), nn.GRUCell(2 + 8, 8)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        messages = self.adjacency @ F.relu(self.message(h))
        joined_inputs = torch.cat((x, messages), -1).flatten(0, 1)
        h = self.cell(joined_inputs, h.flatten(0, 1)).unflatten(0, (-1, 6))
        return h.amax(1), h


def make_graph_network() -> Made:
    torch.manual_seed(0)
    return made(GraphRNN(), normal((6, 2)), zeros(6, 8))


class EdgeMessages(nn.Module):
    """Messages along listed edges, summed at their ends by index_add; nodes are columns."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("source", torch.tensor([0, 1, 2, 3, 0, 2]))
        self.register_buffer("target", torch.tensor([1, 2, 3, 0, 2, 0]))
        self.weight = nn.Linear(3, 3)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        messages = self.weight(h).tanh().index_select(1, self.source)
        received = torch.zeros_like(h).index_add(1, self.target, messages)
        h = torch.tanh(0.5 * h + 0.3 * received + x)
        return h.prod(-1), h


def make_messages_along_edges() -> Made:
    torch.manual_seed(0)
    return made(EdgeMessages(), normal((4, 3)), zeros(4, 3))


class HyperNetwork(nn.Module):
    """A small GRU that makes the weights of the main recurrence at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.hyper, self.weights = nn.GRUCell(4, 6), nn.Linear(6, 8 * 12)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        small = self.hyper(x, state[0])
        weights = self.weights(small).reshape(-1, 8, 12)
        both = torch.cat((x, state[1]), -1)
        h = torch.tanh(torch.bmm(weights, both.unsqueeze(2)).squeeze(2))
        return h, (small, h)


def make_hyper_network() -> Made:
    torch.manual_seed(0)
    return made(HyperNetwork(), normal((4,)), (zeros(6), zeros(8)))


class Sparsemax(nn.Module):
    """Reads a memory with sparsemax weights: sort, cumulative sum and threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.cell = nn.Linear(12, 6), nn.GRUCell(4 + 6, 12)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        h, memory = state
        scores = torch.einsum("bd,btd->bt", self.key(h), memory)
        ordered = scores.sort(-1, descending=True).values
        sums = ordered.cumsum(-1) - 1
        count = torch.arange(1, 6)
        support = (ordered * count > sums).sum(-1, keepdim=True)
        threshold = sums.gather(-1, support - 1) / support
        weights = F.relu(scores - threshold)
        read = (weights[..., None] * memory).sum(1)
        h = self.cell(torch.cat((x, read), -1), h)
        return weights, (h, torch.cat((memory[:, 1:], h[:, None, :6]), 1))


def make_sparsemax_memory() -> Made:
    torch.manual_seed(0)
    return made(Sparsemax(), normal((4,)), (zeros(12), zeros(5, 6)))


class Oscillators(nn.Module):
    """A coupled oscillatory network (coRNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(10 + 10 + 3, 10)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        y, z = state
        z = z + 0.05 * (torch.tanh(self.w(torch.cat((y, z, x), -1))) - 1.5 * y - 1.0 * z)
        y = y + 0.05 * z
        return y, (y, z)


def make_coupled_oscillators() -> Made:
    torch.manual_seed(0)
    return made(Oscillators(), normal((3,)), (zeros(10), zeros(10)))


class ExtendedLSTM(nn.Module):
    """The sLSTM of the xLSTM paper: exponential gates with a stabiliser."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(5, 40), nn.Linear(10, 40, bias=False)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> Any:
        h, c, n, m = state
        z, i, f, o = (self.x(x) + self.h(h)).chunk(4, -1)
        log_f = F.logsigmoid(f + 2)
        highest = torch.maximum(log_f + m, i)
        i, f = torch.exp(i - highest), torch.exp(log_f + m - highest)
        c, n = f * c + i * z.tanh(), f * n + i
        h = o.sigmoid() * c / n.clamp(min=1e-6)
        return h, (h, c, n, highest)


def make_extended_lstm() -> Made:
    torch.manual_seed(0)
    return made(ExtendedLSTM(), normal((5,)), tuple(zeros(10) for _ in range(4)))


class WordBag(nn.Module):
    """A GRU over bags of words: six word numbers a step, 0 for none, summed where present."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.cell = nn.Embedding(40, 8, padding_idx=0), nn.GRUCell(8, 12)

    def forward(self, words: Tensor, h: Tensor) -> Pair:
        present = words.ne(0).unsqueeze(-1)
        total = (self.words(words) * present).sum(1) / present.sum(1).clamp(min=1)
        after = self.cell(total, h)
        h = torch.where(present.any(1), after, h)
        return h, h


def make_bags_of_words() -> Made:
    torch.manual_seed(0)

    def fresh(rng: np.random.Generator, batch: int) -> tuple[Tensor]:
        words = rng.integers(1, 40, (batch, 6)) * (rng.random((batch, 6)) < 0.4)
        return (torch.from_numpy(words),)

    return made(WordBag(), fresh, zeros(12))


class SharedAttention(nn.Module):
    """Rows are the players of a game, and attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.qkv = nn.GRUCell(4 + 8, 12), nn.Linear(12, 24)

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        q, k, v = self.qkv(h).chunk(3, -1)
        heard = (q @ k.T / 8**0.5).softmax(-1) @ v
        h = self.cell(torch.cat((x, heard), -1), h)
        return h[:, :3], h


def make_attention_between_rows() -> Made:
    torch.manual_seed(0)
    return made(SharedAttention(), normal((4,)), zeros(12), independent_rows=False)


class RelativeStrength(nn.Module):
    """Rows are the shares of a market: momentum relative to the mean of all, and ranks."""

    def forward(self, change: Tensor, momentum: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        momentum = 0.9 * momentum + 0.1 * (change - change.mean(0))
        rank = (momentum[:, None] > momentum[None, :]).sum(1)
        return (momentum.softmax(0), rank), momentum


def make_strength_relative_to_all_rows() -> Made:
    return made(RelativeStrength(), normal(()), zeros(), independent_rows=False)


CASES = [
    Case(make_gru_cell),
    Case(make_lstm_cells),
    Case(make_rnn_cells),
    Case(make_torch_lstm_of_two_layers),
    Case(make_torch_gru_batch_first),
    Case(make_torch_rnn_with_relu),
    Case(make_torch_lstm_with_projection),
    Case(make_lstm_of_two_layers),
    Case(make_lstm_with_projection),
    Case(make_layer_norm_lstm),
    Case(make_conv_gru),
    Case(make_conv_lstm),
    Case(make_attention_over_a_ring),
    Case(make_rotary_attention),
    Case(make_linear_attention),
    Case(make_delta_rule),
    Case(make_diagonal_state_space),
    Case(make_selective_state_space),
    Case(make_mixture_of_experts),
    Case(make_top_two_of_six_experts),
    Case(make_transformer_with_rolling_cache),
    Case(make_transformer_encoder_over_a_window),
    Case(make_multihead_attention_over_states),
    Case(make_highway_network),
    Case(make_multiplicative_lstm),
    Case(make_embedding_of_indices_in_floats),
    Case(make_120_layers),
    Case(make_pooled_frames),
    Case(make_transposed_convolution),
    Case(make_two_scales_with_interpolation),
    Case(make_pixel_shuffle),
    Case(make_warp_by_grid_sample),
    Case(make_bilinear_heads_by_einsum),
    Case(make_ordered_neurons_by_cumsum),
    Case(make_scatter_add_into_the_state),
    Case(make_tape_with_gather_and_scatter),
    Case(make_transition_counts_by_one_hot),
    Case(make_neural_turing_machine),
    Case(make_neural_stack),
    Case(make_minimal_gru_in_logarithms),
    Case(make_conditional_random_field),
    Case(make_echo_state_network),
    Case(make_phased_lstm),
    Case(make_clockwork_rnn),
    Case(make_spiking_neurons),
    Case(make_graph_network),
    Case(make_messages_along_edges),
    Case(make_hyper_network),
    Case(make_sparsemax_memory),
    Case(make_coupled_oscillators),
    Case(make_extended_lstm),
    Case(make_bags_of_words),
    Case(make_attention_between_rows),
    Case(make_strength_relative_to_all_rows),
]
