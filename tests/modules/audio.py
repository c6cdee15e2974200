"""Streams of audio: one step is a sample or a short block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from .case import Case, Made, integers, made, normal, repeated, uniform, zeros

Pair = tuple[Tensor, Tensor]


@dataclass
class DenoiserState:
    past: Tensor  # [B, 32], the block before
    h: Tensor  # [B, 24]
    tail: Tensor  # [B, 32], what the next block adds


class Denoiser(nn.Module):
    """Masks a learned filterbank with a GRU; blocks of 32 samples, windows of 64, overlap-add."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = weight_norm(nn.Conv1d(1, 16, 16, stride=8, bias=False))
        self.cell, self.mask = nn.GRUCell(16 * 7, 24), nn.Linear(24, 16)
        self.decoder = weight_norm(nn.ConvTranspose1d(16, 1, 16, stride=8, bias=False))
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, block: Tensor, state: DenoiserState) -> tuple[Tensor, DenoiserState]:
        frame = torch.cat((state.past, block), 1) * self.window
        features = F.relu(self.encoder(frame[:, None]))
        h = self.cell(features.flatten(1), state.h)
        masked = features * torch.sigmoid(self.mask(h))[:, :, None]
        sound = self.decoder(masked).squeeze(1)
        return sound[:, :32] + state.tail, DenoiserState(block, h, sound[:, 32:])


def make_denoiser_with_weight_norm() -> Made:
    torch.manual_seed(0)
    state = DenoiserState(zeros(32), zeros(24), zeros(32))
    return made(Denoiser(), normal((32,), spread=0.3), state)


def low_pass(frequency: float, q: float) -> tuple[float, float, float, float, float]:
    """A second-order low-pass (Bristow-Johnson's cookbook); frequency as a part of the rate."""
    w = 2 * math.pi * frequency
    alpha, cosine = math.sin(w) / (2 * q), math.cos(w)
    b = (1 - cosine) / 2
    a0 = 1 + alpha
    return b / a0, 2 * b / a0, b / a0, -2 * cosine / a0, (1 - alpha) / a0


class Biquads(nn.Module):
    """Three second-order sections in transposed direct form II; one sample a step."""

    def __init__(self) -> None:
        super().__init__()
        self.sections = [low_pass(0.1, q) for q in (0.518, 0.707, 1.932)]

    def forward(self, sample: Tensor, state: Tensor) -> Pair:
        after = []
        for index, (b0, b1, b2, a1, a2) in enumerate(self.sections):
            out = b0 * sample + state[:, index, 0]
            after += [b1 * sample - a1 * out + state[:, index, 1], b2 * sample - a2 * out]
            sample = out
        return sample, torch.stack(after, 1).view_as(state)


def make_biquad_cascade() -> Made:
    return made(Biquads(), normal((), spread=0.5), zeros(3, 2))


class BiquadBlock(nn.Module):
    """A stereo biquad with trained coefficients over a block of 16 samples."""

    def __init__(self) -> None:
        super().__init__()
        b0, b1, b2, a1, a2 = low_pass(0.05, 0.707)
        self.b = nn.Parameter(torch.tensor([b0, b1, b2]))
        self.a = nn.Parameter(torch.tensor([a1, a2]))

    def forward(self, block: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        s1, s2 = state
        samples = []
        for x in block.unbind(-1):
            y = self.b[0] * x + s1
            s1, s2 = self.b[1] * x - self.a[0] * y + s2, self.b[2] * x - self.a[1] * y
            samples.append(y)
        return torch.stack(samples, -1), (s1, s2)


def make_biquad_over_blocks() -> Made:
    return made(BiquadBlock(), normal((2, 16), spread=0.5), (zeros(2), zeros(2)))


def fourier(size: int) -> tuple[Tensor, Tensor]:
    """The real and imaginary parts of a real signal's DFT, as matrices [size, size/2 + 1]."""
    angle = 2 * math.pi * torch.outer(torch.arange(size), torch.arange(size // 2 + 1)) / size
    return angle.cos(), -angle.sin()


def mel_filters(bins: int, mels: int, rate: float) -> Tensor:
    """Triangles [bins, mels], equally spaced in mel."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, bins)[:, None]
    rise = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)


class SpotterState(NamedTuple):
    samples: Tensor  # [B, 64]
    features: Tensor  # [B, 5, 10]
    h: Tensor  # [B, 24]


class KeywordSpotter(nn.Module):
    """Log-mel features of a ring buffer of samples, a convolution over five frames, and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        cosine, sine = fourier(64)
        self.register_buffer("cosine", cosine * torch.hann_window(64)[:, None])
        self.register_buffer("sine", sine * torch.hann_window(64)[:, None])
        self.register_buffer("mel", mel_filters(33, 10, 8000.0))
        self.conv, self.cell, self.head = nn.Conv1d(10, 16, 5), nn.GRUCell(16, 24), nn.Linear(24, 4)

    def forward(self, hop: Tensor, state: SpotterState) -> tuple[Tensor, SpotterState]:
        samples = torch.cat((state.samples[:, 32:], hop), 1)
        power = (samples @ self.cosine).square() + (samples @ self.sine).square()
        mel = torch.log(power @ self.mel + 1e-6)
        features = torch.cat((state.features[:, 1:], mel[:, None]), 1)
        h = self.cell(F.relu(self.conv(features.transpose(1, 2))).squeeze(-1), state.h)
        return self.head(h).softmax(-1), SpotterState(samples, features, h)


def make_keyword_spotter_with_log_mel() -> Made:
    torch.manual_seed(0)
    state = SpotterState(zeros(64), torch.full((8, 5, 10), math.log(1e-6)), zeros(24))
    return made(KeywordSpotter(), normal((32,), spread=0.1), state)


class DCBlocker(nn.Module):
    """y[n] = x[n] - x[n-1] + 0.995 y[n-1], for a block of eight samples."""

    def forward(self, block: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        difference = block - torch.cat((state["x"][:, None], block[:, :-1]), 1)
        y, samples = state["y"], []
        for n in range(8):
            y = difference[:, n] + 0.995 * y
            samples.append(y)
        return torch.stack(samples, 1), {"x": block[:, -1], "y": y}


def make_dc_blocker() -> Made:
    return made(DCBlocker(), normal((8,), mean=0.4, spread=0.2), {"x": zeros(), "y": zeros()})


class Compressor(nn.Module):
    """A feed-forward compressor in decibels, with an attack and a release."""

    def __init__(self) -> None:
        super().__init__()
        self.attack, self.release = math.exp(-1 / 40), math.exp(-1 / 400)

    def forward(self, sample: Tensor, envelope: Tensor) -> tuple[Pair, Tensor]:
        level = 20 * torch.log10(sample.abs() + 1e-5)
        over = (level + 24).clamp(min=0)
        wanted = over * (1 - 1 / 4)
        rate = torch.where(wanted > envelope, self.attack, self.release)
        envelope = rate * envelope + (1 - rate) * wanted
        gain = torch.pow(10.0, -envelope / 20)
        return (sample * gain, gain), envelope


def make_compressor_with_attack_and_release() -> Made:
    return made(Compressor(), normal((), spread=0.3), zeros())


class AutomaticGain(nn.Module):
    """Holds the level of a block near a target, more slowly upward than downward."""

    def forward(self, block: Tensor, gain: Tensor) -> Pair:
        level = (block.square().mean(1) + 1e-8).sqrt()
        wanted = (0.1 / level).clamp(0.1, 30)
        gain = torch.lerp(gain, wanted, torch.where(wanted < gain, 0.5, 0.02))
        return (block * gain[:, None]).clamp(-1, 1), gain


def make_automatic_gain_control() -> Made:
    return made(AutomaticGain(), normal((16,), spread=0.05), repeated(1.0))


class WaveNet(nn.Module):
    """Dilated causal convolutions with a queue for each; mu-law samples in, logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.dilations = (1, 2, 4, 8)
        self.embedding = nn.Embedding(32, 8)
        self.old = nn.ModuleList(nn.Linear(8, 16) for _ in self.dilations)
        self.new = nn.ModuleList(nn.Linear(8, 16, bias=False) for _ in self.dilations)
        self.skip = nn.ModuleList(nn.Linear(8, 12) for _ in self.dilations)
        self.residual = nn.ModuleList(nn.Linear(8, 8) for _ in self.dilations)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 32))

    def forward(self, sample: Tensor, queues: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x = self.embedding(sample)
        total, after = torch.zeros(()), []
        layers = zip(self.old, self.new, self.skip, self.residual, queues, strict=True)
        for old, new, skip, residual, queue in layers:
            after.append(torch.cat((queue[:, 1:], x.unsqueeze(1)), 1))
            a, b = (old(queue[:, 0]) + new(x)).chunk(2, -1)
            gated = a.tanh() * b.sigmoid()
            total = total + skip(gated)
            x = x + residual(gated)
        return self.head(total), after


def make_wavenet_with_queues() -> Made:
    torch.manual_seed(0)
    module = WaveNet()
    return made(module, integers((), high=32), [zeros(d, 8) for d in module.dilations])


class DelayLine(nn.Module):
    """A comb filter that reads and writes its line at a position that moves round."""

    def forward(self, sample: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        line, position = state
        echo = line.gather(1, position[:, None]).squeeze(1)
        line = line.scatter(1, position[:, None], (sample + 0.7 * echo)[:, None])
        return 0.8 * sample + 0.2 * echo, (line, (position + 1) % 37)


def make_comb_filter_with_write_position() -> Made:
    state = (zeros(37), zeros(dtype=torch.int64))
    return made(DelayLine(), normal((), spread=0.3), state)


class ModulatedDelay(nn.Module):
    """A chorus: reads a ring between two samples, at a distance given with each sample."""

    def forward(self, sample: Tensor, delay: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        ring, position = state
        cells = torch.arange(ring.shape[1])
        ring = torch.where(cells == position[:, None], sample[:, None], ring)
        whole = delay.floor()
        first = torch.remainder(position - whole.long(), 24)
        second = torch.remainder(first - 1, 24)
        part = delay - whole
        rows = torch.arange(ring.shape[0])
        read = (1 - part) * ring[rows, first] + part * ring[rows, second]
        return 0.5 * (sample + read), (ring, torch.remainder(position + 1, 24))


def make_chorus_with_fractional_delay() -> Made:
    samples, delays = normal((), spread=0.3), uniform((), low=1, high=20)

    def fresh(rng: Any, batch: int) -> Pair:
        return samples(rng, batch)[0], delays(rng, batch)[0]

    return made(ModulatedDelay(), fresh, (zeros(24), zeros(dtype=torch.int64)), inputs=fresh)


class SpectralState(NamedTuple):
    past: Tensor  # [B, 16]
    noise: Tensor  # [B, 17]
    tail: Tensor  # [B, 16]


class SpectralSubtraction(nn.Module):
    """A short-time Fourier transform by matrices, a noise estimate, and the way back."""

    def __init__(self) -> None:
        super().__init__()
        cosine, sine = fourier(32)
        window = torch.hann_window(32).sqrt()
        weights = torch.full((17, 1), 2.0)
        weights[0] = weights[-1] = 1
        self.register_buffer("forward_matrix", torch.cat((cosine, sine), 1) * window[:, None])
        back = torch.cat((weights * cosine.T, weights * sine.T), 0) / 32
        self.register_buffer("back_matrix", back * window)

    def forward(self, block: Tensor, state: SpectralState) -> tuple[Tensor, SpectralState]:
        spectrum = torch.cat((state.past, block), 1) @ self.forward_matrix
        real, imaginary = spectrum.split(17, dim=1)
        power = real**2 + imaginary**2
        rate = torch.where(power < state.noise, 0.3, 0.01)
        noise = state.noise + rate * (power - state.noise)
        gain = (1 - noise / (power + 1e-9)).clamp(0.05, 1).sqrt()
        sound = torch.cat((gain * real, gain * imaginary), 1) @ self.back_matrix
        return sound[:, :16] + state.tail, SpectralState(block, noise, sound[:, 16:])


def make_spectral_subtraction_by_dft_matrix() -> Made:
    state = SpectralState(zeros(16), torch.ones(8, 17), zeros(16))
    return made(SpectralSubtraction(), normal((16,), spread=0.3), state)


class MovingRMS(nn.Module):
    """The root mean square and the crest factor of the last 32 samples."""

    def forward(self, block: Tensor, ring: Tensor) -> tuple[Pair, Tensor]:
        ring = torch.cat((ring, block), 1)[:, block.shape[1] :]
        rms = ring.square().mean(1).sqrt()
        return (rms, ring.abs().amax(1) / rms.clamp(min=1e-4)), ring


def make_moving_rms() -> Made:
    return made(MovingRMS(), normal((4,), spread=0.2), zeros(32), output_names=["rms", "crest"])


class StreamingBatchNorm(nn.Module):
    """A causal convolution with BatchNorm in evaluation mode, and what it must remember."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv1d(3, 12, 3), nn.BatchNorm1d(12)
        self.second, self.norm2 = nn.Conv1d(12, 6, 3, groups=3), nn.BatchNorm1d(6)
        for norm in (self.norm1, self.norm2):
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, block: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        x = torch.cat((state[0], block), 2)
        y = torch.cat((state[1], F.relu(self.norm1(self.first(x)))), 2)
        return self.norm2(self.second(y)), (x[..., -2:], y[..., -2:])


def make_streaming_batch_norm() -> Made:
    torch.manual_seed(0)
    return made(StreamingBatchNorm(), normal((3, 4)), (zeros(3, 2), zeros(12, 2)))


class EchoState(NamedTuple):
    weights: Tensor  # [B, 16]
    history: Tensor  # [B, 16], newest first


class EchoCanceller(nn.Module):
    """Normalised least mean squares: the filter is a part of the state."""

    def forward(self, far: Tensor, microphone: Tensor, state: EchoState) -> Any:
        history = torch.cat((far[:, None], state.history[:, :-1]), 1)
        error = microphone - (state.weights * history).sum(1)
        step = 0.1 * error / (history.square().sum(1) + 0.01)
        weights = 0.9999 * state.weights + step[:, None] * history
        return error, EchoState(weights, history)


def make_echo_canceller_with_nlms() -> Made:
    return made(
        EchoCanceller(),
        normal((), (), spread=0.4),
        EchoState(zeros(16), zeros(16)),
        input_names=["far", "microphone"],
    )


class Oscillator(nn.Module):
    """Eight harmonics of a pitch, from a phase that wraps at 2π."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("harmonics", torch.arange(1, 9))

    def forward(self, pitch: Tensor, amplitudes: Tensor, phase: Tensor) -> Pair:
        phase = torch.remainder(phase + 2 * math.pi * pitch / 16000, 2 * math.pi)
        audible = pitch[:, None] * self.harmonics < 8000
        waves = torch.sin(phase[:, None] * self.harmonics) * audible
        return (amplitudes.softmax(-1) * waves).sum(-1), phase


def make_harmonic_oscillator() -> Made:
    pitches, amplitudes = uniform((), low=80, high=1500), normal((8,))

    def fresh(rng: Any, batch: int) -> Pair:
        return pitches(rng, batch)[0], amplitudes(rng, batch)[0]

    return made(Oscillator(), fresh, zeros(), double=False)


class DoublePhase(nn.Module):
    """A frame of 16 samples by a cumulative sum of the pitch; the phase is in float64 turns."""

    def forward(self, pitch: Tensor, phase: Tensor) -> Pair:
        turns = phase[:, None] + torch.cumsum(pitch.double() / 16000, 1)
        wave = torch.cos(2 * math.pi * (turns - turns.floor())).float()
        last = turns[:, -1]
        return wave, last - torch.floor(last)


def make_oscillator_with_double_phase() -> Made:
    fresh = uniform((16,), low=80, high=1500)
    return made(DoublePhase(), fresh, zeros(dtype=torch.float64), double=False)


class CumulativeNorm(nn.Module):
    """A causal separable convolution with Conv-TasNet's cumulative layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.point, self.depth = nn.Linear(6, 12), nn.Conv1d(12, 12, 3, groups=12)
        self.slope, self.out = nn.PReLU(), nn.Linear(12, 6)

    def forward(self, frame: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        x = self.slope(self.point(frame))
        sums = state["sums"]
        total, squares = sums["x"] + x.sum(1), sums["xx"] + x.square().sum(1)
        count = sums["count"] + 12
        mean = total / count
        variance = squares / count - mean.square()
        x = (x - mean[:, None]) * torch.rsqrt(variance + 1e-5)[:, None]
        window = torch.cat((state["window"][:, :, 1:], x[:, :, None]), 2)
        y = frame + self.out(F.relu(self.depth(window)).squeeze(2))
        return y, {"window": window, "sums": {"x": total, "xx": squares, "count": count}}


def make_cumulative_layer_norm() -> Made:
    torch.manual_seed(0)
    sums = {"x": zeros(), "xx": zeros(), "count": zeros(dtype=torch.int64)}
    return made(CumulativeNorm(), normal((6,)), {"window": zeros(12, 3), "sums": sums})


class VoiceActivity(nn.Module):
    """Speech by energy above a noise floor, held for eight blocks after it ends."""

    def forward(self, block: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        floor, hangover = state
        energy = 10 * torch.log10(block.square().mean(-1) + 1e-10)
        speech = energy > floor + 6
        floor = torch.where(speech, floor + 0.01, floor + 0.1 * (energy - floor))
        hangover = torch.where(speech, 8, (hangover - 1).clamp(min=0))
        return {"speech": hangover > 0, "energy": energy}, (floor, hangover)


def make_voice_activity_detector() -> Made:
    def fresh(rng: Any, batch: int) -> tuple[Tensor]:
        loud = torch.from_numpy(rng.random((batch, 1)) < 0.2)
        block = normal((32,), spread=0.01)(rng, batch)[0]
        return (torch.where(loud, block * 20, block),)

    state = (repeated(-40.0), zeros(dtype=torch.int32))
    return made(VoiceActivity(), fresh, state)


class Limiter(nn.Module):
    """Looks 16 samples ahead and lowers the gain before a peak arrives."""

    def forward(self, sample: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        ahead, gain = state
        out = ahead[:, 0]
        ahead = torch.cat((ahead[:, 1:], sample[:, None]), 1)
        wanted = (0.5 / ahead.abs().max(dim=1).values.clamp(min=0.5)).clamp(max=1)
        gain = torch.minimum(wanted, gain + 0.02 * (1 - gain))
        return out * gain, (ahead, gain)


def make_limiter_with_look_ahead() -> Made:
    return made(Limiter(), normal((), spread=0.5), (zeros(16), repeated(1.0)))


class Resampler(nn.Module):
    """Four samples in, three out: upsample by three, filter, and keep every fourth."""

    def __init__(self) -> None:
        super().__init__()
        n = torch.arange(24) - 11.5
        taps = torch.sinc(n / 4) * torch.hamming_window(24, periodic=False)
        self.register_buffer("taps", (taps / taps.sum() * 3).view(1, 1, -1))

    def forward(self, block: Tensor, past: Tensor) -> Pair:
        samples = torch.cat((past, block), 1)
        stuffed = F.pad(samples[:, :, None], (0, 2)).flatten(1)
        out = F.conv1d(stuffed[:, None, :], self.taps, stride=4).squeeze(1)
        return out[:, -3:], samples[:, -8:]


def make_polyphase_resampler() -> Made:
    return made(Resampler(), normal((4,), spread=0.4), zeros(8))


class VectorQuantiser(nn.Module):
    """A streaming encoder with two stages of residual vector quantisation, as in neural codecs."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 6, 12)
        self.codebooks = nn.Parameter(torch.randn(2, 16, 6) * 0.4)

    def forward(self, block: Tensor, past: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        window = torch.cat((past, block), 1)
        residual = F.elu(self.encoder(window[:, None])).squeeze(-1)
        codes, quantised = [], torch.zeros_like(residual)
        for codebook in self.codebooks:
            distances = (residual[:, None] - codebook).square().sum(-1)
            code = distances.argmin(-1)
            chosen = F.embedding(code, codebook)
            quantised, residual = quantised + chosen, residual - chosen
            codes.append(code)
        return (torch.stack(codes, -1), quantised), window[:, 8:]


def make_residual_vector_quantiser() -> Made:
    torch.manual_seed(0)
    return made(VectorQuantiser(), normal((8,)), zeros(4), output_names=["codes", "quantised"])


class MuLaw(nn.Module):
    """An adaptive differential coder: 16 levels, with a step size that follows the signal."""

    def forward(self, sample: Tensor, state: dict[str, Tensor]) -> Any:
        difference = sample - state["predicted"]
        code = torch.round(difference / state["step"]).clamp(-8, 7)
        predicted = (0.95 * (state["predicted"] + code * state["step"])).clamp(-1, 1)
        factor = torch.where(code.abs() > 4, 1.5, 0.9)
        step = (state["step"] * factor).clamp(0.002, 0.2)
        return code.to(torch.int8), {"predicted": predicted, "step": step}


def make_adaptive_differential_coder() -> Made:
    state = {"predicted": zeros(), "step": repeated(0.02)}
    return made(MuLaw(), normal((), spread=0.3), state, double=False)


CASES = [
    Case(make_denoiser_with_weight_norm),
    Case(make_biquad_cascade),
    Case(make_biquad_over_blocks),
    Case(make_keyword_spotter_with_log_mel),
    Case(make_dc_blocker),
    Case(make_compressor_with_attack_and_release),
    Case(make_automatic_gain_control),
    Case(make_wavenet_with_queues),
    Case(make_comb_filter_with_write_position),
    Case(make_chorus_with_fractional_delay),
    Case(make_spectral_subtraction_by_dft_matrix),
    Case(make_moving_rms),
    Case(make_streaming_batch_norm),
    Case(make_echo_canceller_with_nlms),
    Case(make_harmonic_oscillator),
    Case(make_oscillator_with_double_phase),
    Case(make_cumulative_layer_norm),
    Case(make_voice_activity_detector),
    Case(make_limiter_with_look_ahead),
    Case(make_polyphase_resampler),
    Case(make_residual_vector_quantiser),
    Case(make_adaptive_differential_coder),
]
