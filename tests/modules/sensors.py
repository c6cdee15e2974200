"""Sensors, events, clocks and codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import (
    Case,
    Draw,
    Made,
    flags,
    integers,
    joined,
    made,
    normal,
    repeated,
    uniform,
    zeros,
)

Pair = tuple[Tensor, Tensor]


class Smoothing(nn.Module):
    """Exponential smoothing with a learned rate for each of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor([-3.0, -1.0, 0.0, 2.0]))

    def forward(self, x: Tensor, mean: Tensor) -> Pair:
        mean = torch.lerp(mean, x, torch.sigmoid(self.rate))
        return mean, mean


def make_exponential_smoothing() -> Made:
    return made(Smoothing(), normal((4,), mean=20, spread=3), zeros(4))


class Holt(nn.Module):
    """Double exponential smoothing with a forecast three steps ahead."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        level = 0.3 * x + 0.7 * (state[0] + state[1])
        trend = 0.1 * (level - state[0]) + 0.9 * state[1]
        return level + 3 * trend, (level, trend)


def make_double_exponential_smoothing() -> Made:
    return made(Holt(), normal((2,), mean=100, spread=5), (repeated([100.0, 100.0]), zeros(2)))


class Seasonal(nn.Module):
    """Holt and Winters' smoothing with a season of seven, rolled at each step."""

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        season = state["season"]
        level = 0.2 * (x - season[:, 0]) + 0.8 * state["level"]
        today = 0.1 * (x - level) + 0.9 * season[:, 0]
        season = torch.cat((today[:, None], season[:, 1:]), 1).roll(-1, 1)
        return level + season[:, 0], {"level": level, "season": season}


def make_seasonal_smoothing() -> Made:
    return made(Seasonal(), normal((), mean=10), {"level": repeated(10.0), "season": zeros(7)})


class WelfordState(NamedTuple):
    count: Tensor  # [B], int64
    mean: Tensor  # [B, 3]
    m2: Tensor  # [B, 3]


class Welford(nn.Module):
    """Running mean and variance (Welford), with int64 counts."""

    def forward(self, x: Tensor, state: WelfordState) -> tuple[dict[str, Tensor], WelfordState]:
        count = state.count + 1
        delta = x - state.mean
        mean = state.mean + delta / count.unsqueeze(-1)
        m2 = state.m2 + delta * (x - mean)
        variance = m2 / (count - 1).clamp(min=1).unsqueeze(-1)
        return {"mean": mean, "variance": variance}, WelfordState(count, mean, m2)


def make_running_variance() -> Made:
    state = WelfordState(zeros(dtype=torch.int64), zeros(3), zeros(3))
    return made(Welford(), normal((3,), mean=-4, spread=2), state)


class Debouncer(nn.Module):
    """A button counts as pressed after four equal readings; bools and int16 counters."""

    def forward(self, pressed: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        stable, counter = state
        differs = pressed ^ stable
        counter = torch.where(differs, counter + 1, torch.zeros_like(counter))
        flips = counter >= 4
        counter = counter.masked_fill(flips, 0)
        after = stable ^ flips
        return {"stable": after, "pressed": after & ~stable}, (after, counter)


def make_debouncer() -> Made:
    state = (zeros(4, dtype=torch.bool), zeros(4, dtype=torch.int16))
    return made(Debouncer(), flags((4,), share=0.6), state)


class PeakHold(nn.Module):
    """Holds a peak for ten steps, then lets it fall."""

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        peak, age = state["peak"], state["age"]
        rises = x >= peak
        age = torch.where(rises, torch.zeros_like(age), age + 1)
        peak = torch.where(rises, x, torch.where(age > 10, 0.9 * peak, peak))
        return peak, {"peak": peak, "age": age}


def make_peak_hold() -> Made:
    state = {"peak": zeros(2), "age": zeros(2, dtype=torch.int64)}
    return made(PeakHold(), normal((2,), mean=1), state)


class Hysteresis(nn.Module):
    """A thermostat that starts below 19 degrees and stops above 21."""

    def forward(self, temperature: Tensor, heating: Tensor) -> tuple[Tensor, Tensor]:
        heating = (heating | (temperature < 19.0)) & ~(temperature > 21.0)
        return heating.float() * 1500, heating


def make_hysteresis() -> Made:
    return made(Hysteresis(), normal((), mean=20), zeros(dtype=torch.bool))


class MovingMedian(nn.Module):
    """The median of the last five readings."""

    def forward(self, x: Tensor, ring: Tensor) -> Pair:
        ring = torch.cat((ring[:, 1:], x[:, None]), 1)
        return ring.median(dim=1).values, ring


def make_moving_median() -> Made:
    return made(MovingMedian(), normal((3,)), zeros(5, 3))


class Hampel(nn.Module):
    """Replaces outliers by the median of seven readings (Hampel), by sorting."""

    def forward(self, x: Tensor, ring: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        ring = torch.cat((ring[:, 1:], x[:, None]), 1)
        median = torch.sort(ring, 1).values[:, 3]
        deviation = (ring - median[:, None]).abs().sort(1).values[:, 3]
        outlier = (x - median).abs() > 3 * 1.4826 * deviation
        return (torch.where(outlier, median, x), outlier), ring


def make_hampel_filter() -> Made:
    def fresh(rng: Any, batch: int) -> tuple[Tensor]:
        x = normal(())(rng, batch)[0]
        return (torch.where(torch.from_numpy(rng.random(batch) < 0.1), x * 20, x),)

    return made(Hampel(), fresh, zeros(7))


class GRUDState(NamedTuple):
    h: Tensor  # [B, 16]
    last: Tensor  # [B, 4]
    elapsed: Tensor  # [B, 4], since each was last seen


class GRUD(nn.Module):
    """GRU-D: values that are missing decay to their mean, and the state decays with time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(8, 16)
        self.input_decay = nn.Parameter(torch.rand(4))
        self.state_decay = nn.Linear(4, 16)
        self.register_buffer("mean", torch.tensor([36.6, 80.0, 120.0, 97.0]))
        self.register_buffer("spread", torch.tensor([0.6, 15.0, 20.0, 2.0]))
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor, seen: Tensor, dt: Tensor, state: GRUDState) -> Any:
        elapsed = state.elapsed + dt[:, None]
        decay = torch.exp(-F.relu(self.input_decay * elapsed))
        filled = torch.where(seen, (x - self.mean) / self.spread, decay * state.last)
        h = state.h * torch.exp(-F.relu(self.state_decay(elapsed)))
        h = self.cell(torch.cat((filled, seen.float()), -1), h)
        last = torch.where(seen, filled, state.last)
        elapsed = elapsed.masked_fill(seen, 0.0)
        return self.head(h).sigmoid(), GRUDState(h, last, elapsed)


def make_gru_d() -> Made:
    torch.manual_seed(0)
    mean, spread = torch.tensor([36.6, 80.0, 120.0, 97.0]), torch.tensor([0.6, 15.0, 20.0, 2.0])

    def fresh(rng: Any, batch: int) -> tuple[Tensor, ...]:
        x = normal((4,))(rng, batch)[0] * spread + mean
        dt = torch.from_numpy(np.float32(rng.exponential(0.5, batch)))
        return (x, *flags((4,), share=0.4)(rng, batch), dt)

    return made(GRUD(), fresh, GRUDState(zeros(16), zeros(4), zeros(4)), inputs=fresh)


@dataclass
class ClockState:
    h: Tensor  # [B, 12]
    time: Tensor  # [B], int64, milliseconds since 1970


class DecayBetweenEvents(nn.Module):
    """The state decays as exp(-dt/tau) between events with int64 time stamps in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.log_tau = nn.GRUCell(3, 12), nn.Parameter(torch.linspace(-1, 3, 12))

    def forward(self, x: Tensor, time: Tensor, state: ClockState) -> tuple[Tensor, ClockState]:
        dt = (time - state.time).clamp(min=0).float() / 1000
        h = state.h * torch.exp(-dt[:, None] / self.log_tau.exp())
        h = self.cell(x, h)
        return h, ClockState(h, torch.maximum(time, state.time))


def make_decay_between_time_stamps() -> Made:
    torch.manual_seed(0)
    start = 1_700_000_000_000
    fresh = joined(normal((3,)), integers((), low=start, high=start + 60_000))
    return made(DecayBetweenEvents(), fresh, ClockState(zeros(12), repeated(start, torch.int64)))


class ClosedForm(nn.Module):
    """A closed-form continuous-time cell (CfC): a sigmoid of the elapsed time blends two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5 + 16, 32), nn.SiLU())
        self.heads, self.out = nn.Linear(32, 64), nn.Linear(16, 2)

    def forward(self, x: Tensor, elapsed: Tensor, h: Tensor) -> Pair:
        f1, f2, a, b = self.heads(self.body(torch.cat((x, h), 1))).chunk(4, 1)
        gate = torch.sigmoid(a * elapsed[:, None] + b)
        h = f1.tanh() * (1 - gate) + gate * f2.tanh()
        return self.out(h), h


def make_closed_form_continuous_cell() -> Made:
    torch.manual_seed(0)
    fresh = joined(normal((5,)), uniform((), low=0.01, high=2))
    return made(ClosedForm(), fresh, zeros(16))


class LiquidTimeConstant(nn.Module):
    """A liquid time-constant cell: six semi-implicit Euler steps in one."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(4 + 12, 12)
        self.tau, self.rest = nn.Parameter(torch.rand(12) + 0.5), nn.Parameter(torch.randn(12))

    def forward(self, x: Tensor, h: Tensor) -> Pair:
        for _ in range(6):
            f = torch.sigmoid(self.f(torch.cat((x, h), -1)))
            h = (h + f * self.rest / 6) / (1 + (1 / self.tau + f) / 6)
        return h, h


def make_liquid_time_constant_cell() -> Made:
    torch.manual_seed(0)
    return made(LiquidTimeConstant(), normal((4,)), zeros(12))


def multiply(p: Tensor, q: Tensor) -> Tensor:
    """The product of quaternions [B, 4], scalar first."""
    w, x, y, z = p.unbind(-1)
    a, b, c, d = q.unbind(-1)
    return torch.stack(
        (
            w * a - x * b - y * c - z * d,
            w * b + x * a + y * d - z * c,
            w * c - x * d + y * a + z * b,
            w * d + x * c - y * b + z * a,
        ),
        -1,
    )


class Attitude(nn.Module):
    """Integrates angular rates to a unit quaternion, and rotates gravity into the body."""

    def forward(self, rates: Tensor, q: Tensor) -> Pair:
        angle = torch.linalg.vector_norm(rates, dim=-1, keepdim=True) * 0.01
        axis = F.normalize(rates, dim=-1)
        turn = torch.cat((torch.cos(angle / 2), axis * torch.sin(angle / 2)), -1)
        q = F.normalize(multiply(q, turn), dim=-1)
        w, v = q[:, :1], q[:, 1:]
        gravity = torch.tensor([0.0, 0.0, -9.81]).expand_as(v)
        side = torch.cross(v, gravity, dim=-1)
        return gravity - 2 * w * side + 2 * torch.cross(v, side, dim=-1), q


def make_quaternion_integration() -> Made:
    return made(Attitude(), normal((3,)), repeated([1.0, 0, 0, 0]))


class Madgwick(nn.Module):
    """Madgwick's orientation filter: one gradient step to where gravity points."""

    def forward(self, rates: Tensor, acceleration: Tensor, q: Tensor) -> Pair:
        a = acceleration / acceleration.norm(dim=-1, keepdim=True)
        w, x, y, z = q.unbind(-1)
        f1 = 2 * (x * z - w * y) - a[:, 0]
        f2 = 2 * (w * x + y * z) - a[:, 1]
        f3 = 2 * (0.5 - x * x - y * y) - a[:, 2]
        gradient = torch.stack(
            (
                -2 * y * f1 + 2 * x * f2,
                2 * z * f1 + 2 * w * f2 - 4 * x * f3,
                -2 * w * f1 + 2 * z * f2 - 4 * y * f3,
                2 * x * f1 + 2 * y * f2,
            ),
            -1,
        )
        gradient = gradient / (gradient.norm(dim=-1, keepdim=True) + 1e-6)
        rate = 0.5 * multiply(q, F.pad(rates, (1, 0))) - 0.1 * gradient
        q = q + 0.02 * rate
        q = q / q.norm(dim=-1, keepdim=True)
        return q, q


def make_madgwick_orientation_filter() -> Made:
    gravity = torch.tensor([0.0, 0.0, 9.81])

    def fresh(rng: Any, batch: int) -> Pair:
        rates, noise = normal((3,), (3,))(rng, batch)
        return rates, gravity + noise

    return made(Madgwick(), fresh, repeated([1.0, 0, 0, 0]))


def unit_vectors(rng: Any, batch: int) -> tuple[Tensor]:
    return (F.normalize(normal((3,))(rng, batch)[0], dim=-1),)


class AngleBetween(nn.Module):
    """The angle between successive unit vectors, by the arc cosine of their dot product."""

    def forward(self, direction: Tensor, last: Tensor) -> Pair:
        return torch.acos((direction * last).sum(-1)), direction


def make_angle_between_unit_vectors() -> Made:
    return made(AngleBetween(), unit_vectors, repeated([0.0, 0.0, 1.0]), inputs=unit_vectors)


class ClampedAngle(nn.Module):
    """The angle that a direction has turned from its slow mean, with the usual clamp."""

    def forward(self, direction: Tensor, mean: Tensor) -> Pair:
        mean = F.normalize(0.9 * mean + 0.1 * direction, dim=-1)
        cosine = torch.einsum("bi,bi->b", direction, mean).clamp(-1 + 1e-6, 1 - 1e-6)
        return torch.rad2deg(torch.arccos(cosine)), mean


def make_angle_from_the_mean_direction() -> Made:
    return made(ClampedAngle(), unit_vectors, repeated([0.0, 0.0, 1.0]))


class Occupancy(nn.Module):
    """Log-odds of a grid of cells from probabilities, clamped."""

    def forward(self, probability: Tensor, log_odds: Tensor) -> Pair:
        log_odds = (log_odds + torch.logit(probability)).clamp(-4, 4)
        return torch.sigmoid(log_odds), log_odds


def make_occupancy_grid_with_logit() -> Made:
    fresh = uniform((3, 3), low=0.05, high=0.95)
    return made(Occupancy(), fresh, zeros(3, 3), inputs=fresh)


class FlowMeter(nn.Module):
    """Flow by the square root of a pressure difference, and a total in float64."""

    def forward(self, pressure: Tensor, total: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        flow = 0.62 * torch.sqrt(2 * pressure / 998.0)
        total = total + flow.double() * 0.1
        return (flow, total), total


def make_flow_meter_with_square_root() -> Made:
    fresh = uniform((), low=0, high=5000)
    recorded = [fresh(np.random.default_rng(step), 4) for step in range(40)]
    return made(FlowMeter(), fresh, zeros(dtype=torch.float64), inputs=recorded)


class Thermistor(nn.Module):
    """Steinhart and Hart's equation, a logarithm of the resistance, with a lag correction."""

    def forward(self, resistance: Tensor, state: dict[str, Tensor]) -> Any:
        log = torch.log(resistance)
        kelvin = 1 / (1.129148e-3 + 2.34125e-4 * log + 8.76741e-8 * log**3)
        celsius = kelvin - 273.15
        slow = state["slow"] + 0.2 * (celsius - state["slow"])
        corrected = slow + 1.5 * (slow - state["slow"])
        return corrected, {"slow": slow}


def make_thermistor_with_logarithm() -> Made:
    fresh = uniform((2,), low=2_000, high=30_000)
    return made(Thermistor(), fresh, {"slow": repeated([25.0, 25.0])}, inputs=fresh)


class EventCounter(nn.Module):
    """Counts events in int64, beyond what a double holds exactly."""

    def forward(self, events: Tensor, count: Tensor) -> tuple[Pair, Tensor]:
        count = count + events
        return (count, count % 1000), count


def make_event_counter_near_two_to_the_53() -> Made:
    state = repeated([2**53 - 5, 2**53 - 4], torch.int64)
    return made(EventCounter(), integers((2,), high=4), state)


class ByteCounter(nn.Module):
    """A byte counter near 2**60, its difference to a mark, and its two halves."""

    def forward(self, size: Tensor, state: dict[str, Tensor]) -> Any:
        total = state["total"] + size
        since = total - state["mark"]
        mark = torch.where(since > 10_000, total, state["mark"])
        outputs = {"since": since, "high": total >> 32, "low": total & 0xFFFFFFFF}
        return outputs, {"total": total, "mark": mark}


def make_byte_counter_near_two_to_the_60() -> Made:
    start = repeated(2**60 + 1, torch.int64)
    fresh = integers((), low=1, high=1500)
    return made(ByteCounter(), fresh, {"total": start, "mark": start.clone()})


class Clock(nn.Module):
    """The day, hour, minute and signed hours from noon in a time zone, by integer divisions."""

    def forward(self, elapsed: Tensor, zone: Tensor, seconds: Tensor) -> Any:
        seconds = seconds + elapsed
        local = seconds + 60 * zone
        day = torch.floor_divide(local, 86_400)
        rest = torch.remainder(local, 86_400)
        from_noon = rest - 43_200
        outputs = {
            "day": day,
            "hour": rest // 3600,
            "minute": rest % 3600 // 60,
            "hours_from_noon": torch.div(from_noon, 3600, rounding_mode="trunc"),
            "minutes_from_noon": torch.fmod(from_noon, 3600),
        }
        return outputs, seconds


def make_clock_with_integer_divisions() -> Made:
    fresh = joined(integers((), low=1, high=5000), integers((), low=-720, high=840))
    return made(Clock(), fresh, repeated(-400_000, torch.int64))


class DosingPump(nn.Module):
    """Gives out whole pulses of 0.25 ml and keeps the rest; the flow may be negative."""

    def forward(self, volume: Tensor, rest: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        rest = rest + volume
        pulses = torch.div(rest, 0.25, rounding_mode="trunc")
        rest = rest - 0.25 * pulses
        return (pulses.to(torch.int32), torch.frac(rest)), rest


def make_dosing_pump_with_truncation() -> Made:
    return made(DosingPump(), normal((), spread=0.6), zeros(), double=False)


class Unwrap(nn.Module):
    """Unwraps a heading in degrees across north."""

    def forward(self, heading: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        turned = torch.remainder(heading - state[0] + 180, 360) - 180
        total = state[1] + turned
        return {"turned": turned, "total": total}, (heading, total)


def make_heading_unwrapping() -> Made:
    fresh = uniform((), low=0, high=360)
    return made(Unwrap(), fresh, (zeros(), zeros()), double=False)


class CircularMean(nn.Module):
    """The mean direction of the wind, by sines and cosines."""

    def forward(self, degrees: Tensor, speed: Tensor, state: Tensor) -> tuple[Any, Tensor]:
        angle = torch.deg2rad(degrees)
        vector = speed[:, None] * torch.stack((angle.sin(), angle.cos()), -1)
        state = 0.95 * state + 0.05 * vector
        direction = torch.rad2deg(torch.atan2(state[:, 0], state[:, 1])) % 360
        return (direction, torch.hypot(state[:, 0], state[:, 1])), state


def make_mean_wind_direction() -> Made:
    fresh = joined(uniform((), low=60, high=120), uniform((), low=0.5, high=8))
    return made(CircularMean(), fresh, zeros(2), inputs=fresh)


class RollingHash(nn.Module):
    """FNV-1a and xorshift over bytes, in int64 that overflows and shifts that keep the sign."""

    def forward(self, byte: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        fnv = (state[0] ^ byte) * 1099511628211
        x = state[1] + byte
        x = x ^ (x << 13)
        x = x ^ (x >> 7)
        x = x ^ (x << 17)
        return (fnv & 0xFFFF, torch.bitwise_right_shift(x, 48)), (fnv, x)


def make_hash_with_xor_and_shifts() -> Made:
    state = (repeated(-3750763034362895579, torch.int64), repeated(88172645463325252, torch.int64))
    return made(RollingHash(), integers((), high=256), state, double=False)


class ShiftRegister(nn.Module):
    """A 16-bit linear-feedback shift register in int32, stirred by a bit."""

    def forward(self, bit: Tensor, register: Tensor) -> Pair:
        r = register
        feedback = (r ^ (r >> 2) ^ (r >> 3) ^ (r >> 5) ^ bit) & 1
        register = (r >> 1) | (feedback << 15)
        return register & 0xFF, register


def make_shift_register_in_int32() -> Made:
    fresh = integers((), high=2, dtype=torch.int32)
    return made(ShiftRegister(), fresh, repeated(0xACE1, torch.int32), double=False)


class Checksum(nn.Module):
    """CRC-8 by a table, of bytes that arrive as uint8."""

    def __init__(self) -> None:
        super().__init__()
        table = []
        for value in range(256):
            for _ in range(8):
                value = (value << 1) ^ 0x07 if value & 0x80 else value << 1
            table.append(value & 0xFF)
        self.register_buffer("table", torch.tensor(table))

    def forward(self, byte: Tensor, crc: Tensor) -> tuple[Tensor, Tensor]:
        crc = self.table[crc ^ byte.long()]
        return crc.to(torch.uint8), crc


def make_checksum_with_table() -> Made:
    fresh = integers((), high=256, dtype=torch.uint8)
    return made(Checksum(), fresh, zeros(dtype=torch.int64), double=False)


class Histogram(nn.Module):
    """A histogram of 16 bins in uint8 that wraps at 256, and its share of each bin."""

    def forward(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        position = ((x + 2) * 4).floor().long().clamp(0, 15)
        counts = counts + F.one_hot(position, 16).to(torch.uint8)
        share = counts.float()
        return share / share.sum(1, keepdim=True).clamp(min=1), counts


def make_histogram_in_uint8() -> Made:
    return made(Histogram(), normal(()), zeros(16, dtype=torch.uint8))


class HalfFilter(nn.Module):
    """A low-pass filter in float16."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        first = state[0] * 0.75 + x * 0.25
        second = state[1] * 0.75 + first * 0.25
        return second, (first, second)


def make_low_pass_in_float16() -> Made:
    def fresh(rng: Any, batch: int) -> tuple[Tensor]:
        return (normal((4,))(rng, batch)[0].half(),)

    half = zeros(4, dtype=torch.float16)
    return made(HalfFilter(), fresh, (half, half.clone()), double=False)


class WindowExtremes(nn.Module):
    """Minimum, maximum and mean of the last eight readings, in a ring with a position."""

    def forward(self, x: Tensor, state: dict[str, Tensor]) -> Any:
        here = F.one_hot(state["position"], 8).bool()
        ring = torch.where(here, x[:, None], state["ring"])
        filled = torch.where(here, True, state["filled"])
        low = torch.where(filled, ring, torch.inf).amin(1)
        high = torch.where(filled, ring, -torch.inf).amax(1)
        mean = (ring * filled).sum(1) / filled.sum(1)
        position = (state["position"] + 1) % 8
        return (low, high, mean), {"ring": ring, "filled": filled, "position": position}


def make_window_extremes_with_ring_position() -> Made:
    state = {
        "ring": zeros(8),
        "filled": zeros(8, dtype=torch.bool),
        "position": zeros(dtype=torch.int64),
    }
    return made(WindowExtremes(), normal(()), state, output_names=["low", "high", "mean"])


class Anomaly(nn.Module):
    """A z-score against a slow mean and variance that outliers do not move."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        mean, variance = state
        score = (x - mean) * torch.rsqrt(variance + 1e-6)
        weight = 0.05 * torch.exp(-0.5 * (score / 3).square())
        mean = mean + weight * (x - mean)
        variance = (1 - weight) * variance + weight * (x - mean).square()
        return (score, torch.special.erfc(score.abs() / math.sqrt(2))), (mean, variance)


def make_anomaly_score() -> Made:
    return made(Anomaly(), normal((3,), mean=2), (zeros(3), repeated([1.0, 1.0, 1.0])))


def with_gaps(draw: Draw, share: float) -> Draw:
    """NaN where a reading is missing."""

    def fresh(rng: Any, batch: int) -> tuple[Tensor]:
        (x,) = draw(rng, batch)
        return (x.masked_fill(torch.from_numpy(rng.random(tuple(x.shape)) < share), math.nan),)

    return fresh


class HoldLast(nn.Module):
    """Holds the last reading where the sensor gives NaN."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        missing = torch.isnan(x)
        held = torch.where(missing, state[0], x)
        smooth = 0.8 * state[1] + 0.2 * torch.nan_to_num(x, nan=0.0)
        return {"held": held, "missing": missing.sum(-1)}, (held, smooth)


def make_hold_where_readings_are_missing() -> Made:
    fresh = with_gaps(normal((5,), mean=1), 0.2)
    return made(HoldLast(), fresh, (zeros(5), zeros(5)))


class Decibels(nn.Module):
    """A level meter whose logarithm of silence is minus infinity, and the highest level so far."""

    def forward(self, x: Tensor, peak: Tensor) -> Pair:
        level = 20 * torch.log10(x.abs())
        peak = torch.maximum(peak - 0.1, level)
        return level, peak


def make_decibels_of_silence() -> Made:
    def fresh(rng: Any, batch: int) -> tuple[Tensor]:
        x = normal((2,), spread=0.1)(rng, batch)[0]
        return (x.masked_fill(torch.from_numpy(rng.random((batch, 2)) < 0.3), 0.0),)

    return made(Decibels(), fresh, repeated([-math.inf, -math.inf]))


class EdgeCounter(nn.Module):
    """Counts rising edges of eight lines, and packs the lines into a byte."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bits", 2 ** torch.arange(8))

    def forward(self, lines: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        rising = torch.logical_and(lines, torch.logical_not(state[0]))
        edges = state[1] + rising.sum(1)
        packed = (lines * self.bits).sum(1)
        return {"edges": edges, "byte": packed, "any": rising.any(1), "all": lines.all(1)}, (
            lines,
            edges,
        )


def make_edge_counter() -> Made:
    state = (zeros(8, dtype=torch.bool), zeros(dtype=torch.int64))
    return made(EdgeCounter(), flags((8,)), state)


class Tachometer(nn.Module):
    """Turns a minute from int64 nanoseconds between pulses, divided in float64."""

    def forward(self, elapsed: Tensor, state: dict[str, Tensor]) -> Any:
        time = state["time"] + elapsed
        rate = 60e9 / elapsed.to(torch.float64)
        rate = state["rate"] + (rate - state["rate"]) * 0.2
        return rate.to(torch.float32), {"time": time, "rate": rate}


def make_tachometer_in_nanoseconds() -> Made:
    state = {"time": repeated(2**60, torch.int64), "rate": zeros(dtype=torch.float64)}
    return made(Tachometer(), integers((), low=10_000_000, high=80_000_000), state)


class TokenBucket(nn.Module):
    """A rate limiter: tokens fill with the time and each accepted request takes one."""

    def forward(self, elapsed: Tensor, state: dict[str, Tensor]) -> Any:
        tokens = (state["tokens"] + elapsed * 0.005).clamp(max=10)
        accepted = tokens >= 1
        tokens = torch.where(accepted, tokens - 1, tokens)
        refused = state["refused"] + (~accepted).to(torch.int32)
        return accepted, {"tokens": tokens, "refused": refused}


def make_token_bucket() -> Made:
    state = {"tokens": repeated(10.0), "refused": zeros(dtype=torch.int32)}
    return made(TokenBucket(), integers((), high=250), state, double=False)


class ChangeDetector(nn.Module):
    """CUSUM in both directions, which starts again after an alarm."""

    def forward(self, x: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        steps = torch.stack((x - 0.3, -x - 0.3), -1)
        sums = F.relu(sums + steps)
        alarm = sums > 4
        return alarm, sums * ~alarm


def make_change_detector() -> Made:
    return made(ChangeDetector(), normal(()), zeros(2), double=False)


class Odometer(nn.Module):
    """Distance from a 16-bit wheel encoder that wraps round; int32 arithmetic."""

    def forward(self, raw: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        ticks = ((raw - state[0] + 32_768) & 0xFFFF) - 32_768
        total = state[1] + ticks
        return total * 0.00125, (raw, total)


def make_odometer_that_wraps() -> Made:
    fresh = integers((2,), high=65_536, dtype=torch.int32)
    start = zeros(2, dtype=torch.int32)
    return made(Odometer(), fresh, (start, start.clone()))


class Altimeter(nn.Module):
    """Kilometres by a fractional power of pressure, and climb by a least-squares line."""

    def __init__(self) -> None:
        super().__init__()
        t = torch.arange(8) - 3.5
        self.register_buffer("slope", t / t.square().sum())

    def forward(self, pascal: Tensor, window: Tensor) -> tuple[Pair, Tensor]:
        altitude = 44.33 * (1 - (pascal / 101325) ** 0.1903)
        window = torch.cat((window[:, 1:], altitude[:, None]), 1)
        return (altitude, window @ self.slope), window


def make_altimeter_with_fractional_power() -> Made:
    fresh = uniform((), low=90_000, high=102_000)
    return made(Altimeter(), fresh, zeros(8))


CASES = [
    Case(make_exponential_smoothing),
    Case(make_double_exponential_smoothing),
    Case(make_seasonal_smoothing),
    Case(make_running_variance),
    Case(make_debouncer),
    Case(make_peak_hold),
    Case(make_hysteresis),
    Case(make_moving_median),
    Case(make_hampel_filter),
    Case(make_gru_d),
    Case(make_decay_between_time_stamps),
    Case(make_closed_form_continuous_cell),
    Case(make_liquid_time_constant_cell),
    Case(make_quaternion_integration),
    Case(make_madgwick_orientation_filter),
    Case(make_angle_between_unit_vectors),
    Case(make_angle_from_the_mean_direction),
    Case(make_occupancy_grid_with_logit),
    Case(make_flow_meter_with_square_root),
    Case(make_thermistor_with_logarithm),
    Case(make_event_counter_near_two_to_the_53),
    Case(make_byte_counter_near_two_to_the_60),
    Case(make_clock_with_integer_divisions),
    Case(make_dosing_pump_with_truncation),
    Case(make_heading_unwrapping),
    Case(make_mean_wind_direction),
    Case(make_hash_with_xor_and_shifts),
    Case(make_shift_register_in_int32),
    Case(make_checksum_with_table),
    Case(make_histogram_in_uint8),
    Case(make_low_pass_in_float16),
    Case(make_window_extremes_with_ring_position),
    Case(make_anomaly_score),
    Case(make_hold_where_readings_are_missing),
    Case(make_decibels_of_silence),
    Case(make_edge_counter),
    Case(make_tachometer_in_nanoseconds),
    Case(make_token_bucket),
    Case(make_change_detector),
    Case(make_odometer_that_wraps),
    Case(make_altimeter_with_fractional_power),
]
