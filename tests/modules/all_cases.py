"""Every case, by theme."""

from __future__ import annotations

from . import audio, control, forms, networks, refused, sensors, wrappings
from .case import Case

CASES: list[Case] = [
    *control.CASES,
    *audio.CASES,
    *sensors.CASES,
    *networks.CASES,
    *forms.CASES,
    *wrappings.CASES,
    *refused.CASES,
]
