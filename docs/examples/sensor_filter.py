"""A Kalman filter over irregular readings of two sensors: PyTorch beside the exported file.

Two sensors on a balloon measure its height and its rate of climb, at irregular times. A reading
that is missing is NaN. The filter is exported to filter.onnx, and runs in a loop as a device would
run it: with NumPy, without PyTorch, and with a state that is saved and loaded.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zoo_onnx import export_step
from zoo_ort import open_module

START = 1_700_000_000_000  # milliseconds since 1970: int64 holds them, float32 does not


class Belief(NamedTuple):
    time: Tensor  # [B], int64, of the last reading in milliseconds; 0 before the first
    mean: Tensor  # [B, 2], height in metres and climb in metres per second
    covariance: Tensor  # [B, 2, 2]


class BalloonFilter(nn.Module):
    """A Kalman filter for an acceleration of white noise (Bar-Shalom, Li and Kirubarajan, 2001)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("acceleration", torch.tensor(0.01))  # its power spectral density
        self.register_buffer("noise", torch.tensor([4.0, 0.09]))  # variances of the two sensors

    def forward(
        self, time: Tensor, readings: Tensor, belief: Belief
    ) -> tuple[tuple[Tensor, Tensor], Belief]:
        elapsed = torch.where(belief.time == 0, 0, time - belief.time).clamp(min=0) / 1000
        one, zero = torch.ones_like(elapsed), torch.zeros_like(elapsed)
        move = torch.stack((one, elapsed, zero, one), 1).view(-1, 2, 2)
        growth = torch.stack((elapsed**3 / 3, elapsed**2 / 2, elapsed**2 / 2, elapsed), 1)
        mean = (move @ belief.mean[:, :, None])[:, :, 0]
        covariance = move @ belief.covariance @ move.mT
        covariance = covariance + self.acceleration * growth.view(-1, 2, 2)

        seen = ~readings.isnan()
        sensors = torch.diag_embed(seen.float())  # a sensor without a reading measures nothing
        surprise = torch.where(seen, readings - mean, 0)
        spread = sensors @ covariance @ sensors + torch.diag(self.noise)
        gain = torch.linalg.solve(spread, sensors @ covariance).mT
        mean = mean + (gain @ surprise[:, :, None])[:, :, 0]
        covariance = covariance - gain @ sensors @ covariance
        deviation = torch.diagonal(covariance, dim1=1, dim2=2).sqrt()
        return (mean, deviation), Belief(torch.maximum(time, belief.time), mean, covariance)


def initial(count: int) -> Belief:
    covariance = torch.diag(torch.tensor([1e4, 25.0])).repeat(count, 1, 1)
    return Belief(torch.zeros(count).long(), torch.zeros(count, 2), covariance)


def fly(count: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times [T, B], readings [T, B, 2] with NaN, and true heights and climbs [T, B, 2]."""
    rng = np.random.default_rng(seed)
    gaps = rng.integers(50, 2000, (steps, count))
    seconds = gaps.cumsum(0) / 1000
    climb = 3 * np.sin(seconds / 60) + rng.normal(0, 1, count)
    truth = np.stack((300 + (climb * gaps / 1000).cumsum(0), climb), 2)
    readings = truth + rng.normal(0, 1, truth.shape) * [2, 0.3]
    readings[rng.random(truth.shape) < [0.3, 0.6]] = np.nan
    return START + gaps.cumsum(0), np.float32(readings), truth


def run_device(path: str, times: np.ndarray, readings: np.ndarray) -> np.ndarray:
    """The means [T, B, 2]. After half of the readings the device restarts."""
    stepper = open_module(path)
    state, means = stepper.init_state(times.shape[1]), []
    for step, (time, reading) in enumerate(zip(times, readings, strict=True)):
        outputs, state = stepper.step({"time": time, "readings": reading}, state)
        means.append(outputs["mean"])
        if step == len(times) // 2:
            np.savez("belief.npz", **stepper.state_to_arrays(state))
            stepper = open_module(path)
            with np.load("belief.npz") as saved:
                state = stepper.state_from_arrays(saved)
    return np.stack(means)


def main() -> dict[str, float]:
    module = BalloonFilter()
    times, readings, _ = fly(8, 600, seed=0)
    recorded = list(zip(torch.from_numpy(times), torch.from_numpy(readings), strict=True))
    names = {"input_names": ["time", "readings"], "output_names": ["mean", "deviation"]}
    export_step(module, recorded[0], initial(8), "filter.onnx", inputs=recorded, **names)

    times, readings, truth = fly(3, 200, seed=1)
    found, belief, wanted = run_device("filter.onnx", times, readings), initial(3), []
    with torch.no_grad():
        for time, reading in zip(times, readings, strict=True):
            (mean, _), belief = module(torch.from_numpy(time), torch.from_numpy(reading), belief)
            wanted.append(mean.numpy())
    print("seconds  barometer  variometer  PyTorch: height, climb  the file: height, climb")
    for t in range(0, 200, 25):
        numbers = (*readings[t, 0], *wanted[t][0], *found[t, 0])
        print(f"{(times[t, 0] - START) / 1000:7.2f}", "".join(f"{x:11.4f}" for x in numbers))
    largest = float(abs(found - np.stack(wanted)).max())
    errors = [np.sqrt(np.nanmean((x[50:] - truth[50:]) ** 2, (0, 1))) for x in (readings, found)]
    print("root mean square error of the readings: {:.2f} m, {:.2f} m/s".format(*errors[0]))
    print("root mean square error of the filter:   {:.2f} m, {:.2f} m/s".format(*errors[1]))
    print(f"the file differs from PyTorch by at most {largest:.0e}")
    return {"largest": largest, "height": errors[1][0], "climb": errors[1][1]}


if __name__ == "__main__":
    raise SystemExit(main()["largest"] > 1e-3)
