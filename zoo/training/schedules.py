"""The zoo's own learning-rate schedules, as `zoo.registry.ScheduleSpec` asks for them: the share of
the peak learning rate, by the share of training that is done."""

from __future__ import annotations

import math


def cosine(fraction: float) -> float:
    """Half a wave, from 1 to 0 (Loshchilov and Hutter 2017, equation 5)."""
    return (1 + math.cos(math.pi * fraction)) / 2


def constant(fraction: float) -> float:
    return 1.0
