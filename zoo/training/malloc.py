"""Keeping the memory that a training step frees for the next step."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_ON_THE_HEAP = 32 << 20  # bytes; glibc allows no more
KEPT = 1 << 30  # bytes


def keep_freed_memory() -> None:
    """Has the C library keep what is freed, up to a gibibyte, for what is allocated next.

    By itself glibc gives a step's large tensors back to the system, which hands out and clears
    their pages anew in every step. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_ON_THE_HEAP)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
