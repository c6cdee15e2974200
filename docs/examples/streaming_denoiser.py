"""A denoiser of audio, trained for seconds: PyTorch beside the exported file.

A frame has 256 samples and begins 128 samples, a hop, after the one before. The network masks the
spectrum of each frame, and the masked frames are added where they overlap. The file, denoiser.onnx,
runs hop by hop, as audio arrives, and over a whole clip in one call.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from zoo_onnx import export_sequence
from zoo_ort import open_module

HOP, FRAME, BINS, RATE = 128, 256, 129, 8000
State = dict[str, Tensor]


class Denoiser(nn.Module):
    """From hops [B, T, 128] to hops [B, T, 128] without the noise, which are one hop late."""

    def __init__(self) -> None:
        super().__init__()
        turns = torch.outer(torch.arange(FRAME), torch.arange(BINS)) % FRAME / FRAME
        angle = 2 * math.pi * turns
        window = torch.hann_window(FRAME).sqrt()[:, None]
        fourier = torch.stack((angle.cos(), angle.sin())) * window  # [2, 256, 129]
        share = torch.where(torch.arange(BINS) % (BINS - 1) == 0, 1 / FRAME, 2 / FRAME)
        self.register_buffer("analysis", fourier)
        self.register_buffer("synthesis", (fourier * share).mT.contiguous())
        self.conv = weight_norm(nn.Conv1d(1, 8, 9, stride=4))
        self.gru, self.mask = nn.GRU(8 * 31, 64, batch_first=True), nn.Linear(64, BINS)

    def forward(self, hops: Tensor, state: State) -> tuple[Tensor, State]:
        before = torch.cat((state["hop"][:, None], hops[:, :-1]), 1)
        spectra = torch.cat((before, hops), 2)[:, None] @ self.analysis  # [B, 2, T, 129]
        loudness = torch.log(spectra.square().sum(1) + 1e-4)
        features = F.relu(self.conv(loudness.flatten(0, 1)[:, None]))
        y, h = self.gru(features.view(len(hops), -1, 8 * 31), state["h"][None])
        masked = spectra * torch.sigmoid(self.mask(y))[:, None]
        frames = (masked @ self.synthesis).sum(1)  # [B, T, 256]
        tails = torch.cat((state["tail"][:, None], frames[:, :-1, HOP:]), 1)
        after = {"hop": hops[:, -1], "tail": frames[:, -1, HOP:], "h": h[0]}
        return frames[..., :HOP] + tails, after


def initial(count: int) -> State:
    sizes = {"hop": HOP, "tail": HOP, "h": 64}
    return {name: torch.zeros(count, size) for name, size in sizes.items()}


def record(count: int, hops: int = 60) -> tuple[Tensor, Tensor]:
    """Clips [B, T, 128] of notes that fade away, and the same with white noise."""
    time = torch.arange(hops * HOP) / RATE
    clean = torch.zeros(count, hops * HOP)
    for _ in range(4):
        since = time - torch.rand(count, 1) * time[-1]
        phase = 2 * math.pi * (100 + 400 * torch.rand(count, 1)) * since
        note = sum(torch.sin(n * phase) / n for n in range(1, 5))
        clean += torch.where(since > 0, 0.3 * torch.exp(-4 * since) * note, 0)
    noisy = clean + 0.1 * torch.randn(clean.shape)
    return clean.view(count, hops, HOP), noisy.view(count, hops, HOP)


def train(model: Denoiser) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        clean, noisy = record(16)
        found, _ = model(noisy, initial(16))
        optimizer.zero_grad()
        F.mse_loss(found[:, 1:], clean[:, :-1]).backward()
        optimizer.step()


def main() -> dict[str, float]:
    torch.manual_seed(0)
    model = Denoiser()
    train(model)
    model.eval()
    clean, noisy = record(8)
    names = {"input_names": ["hops"], "output_names": ["sound"]}
    export_sequence(model, noisy, initial(8), "denoiser.onnx", **names)

    clean, noisy = (clip.numpy() for clip in record(4))
    with torch.no_grad():
        wanted = model(torch.from_numpy(noisy), initial(4))[0].numpy()
    stepper = open_module("denoiser.onnx")
    streamed, state = np.zeros_like(wanted), stepper.init_state(4)
    for t in range(noisy.shape[1]):
        outputs, state = stepper.step({"hops": noisy[:, t : t + 1]}, state)
        streamed[:, t] = outputs["sound"][:, 0]
    outputs, _ = stepper.step({"hops": noisy}, stepper.init_state(4))

    results = {"noisy": np.roll(noisy, 1, 1), "PyTorch": wanted}
    results |= {"file, hop by hop": streamed, "file, in one call": outputs["sound"]}
    ratios = {}
    print("signal-to-noise ratio")
    for name, sound in results.items():
        error = sound[:, 1:] - clean[:, :-1]
        ratios[name] = float(10 * np.log10(np.square(clean[:, :-1]).sum() / np.square(error).sum()))
        print(f"{name:18} {ratios[name]:8.4f} dB")
    largest = max(float(abs(sound - wanted).max()) for sound in (streamed, outputs["sound"]))
    print(f"samples of the file differ from PyTorch by at most {largest:.0e}")
    return {**ratios, "largest": largest}


if __name__ == "__main__":
    result = main()
    raise SystemExit(result["largest"] > 1e-5)
