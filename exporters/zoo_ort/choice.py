"""The choice of the next token on a CUDA device: `zoo.inference.sampling.choose` as a kernel, which
computes the same in the same precision, float64, from the same float32 logits.

A block of threads chooses for one row at a time. The kernel works with any number of warps of 32
threads.
"""

from __future__ import annotations

from ctypes import c_int, c_void_p

import numpy as np
import numpy.typing as npt

from zoo.config import Sampling
from zoo.inference.sampling import filters
from zoo_ort.cuda import SHARED_BYTES, Buffer, Cuda

NOT_FINITE = -1  # the token of a row whose logits are not finite
WARP, MAX_THREADS = 32, 512
MAX_BLOCKS = 1024  # more rows than that take turns
SCRATCH_BLOCKS = 128  # the same, where each block needs memory of the device
GREEDY, AMONG_ALL, FILTERED = range(3)

SOURCE = r"""
// Threads are in warps of 32, which exchange values without memory. Shared memory: one number a
// warp, one of the block, and `weights` and `falling` if they fit; else those are in `scratch`.
__device__ double sum_of(double* part, double value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffff, value, distance);
  }
  if (blockDim.x == 32) return value;
  part[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0.0;
  for (int warp = 0; warp < blockDim.x / 32; warp++) total += part[warp];
  __syncthreads();
  return total;
}

__device__ double largest_of(double* part, double value) {
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmax(value, __shfl_xor_sync(0xffffffff, value, distance));
  }
  if (blockDim.x == 32) return value;
  part[threadIdx.x / 32] = value;
  __syncthreads();
  double largest = part[0];
  for (int warp = 1; warp < blockDim.x / 32; warp++) largest = fmax(largest, part[warp]);
  __syncthreads();
  return largest;
}

// the sum of the values of all threads before this one; `total` is that of all
__device__ double sum_before(double* part, double value, double* total) {
  const int lane = threadIdx.x % 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    double other = __shfl_up_sync(0xffffffff, value, distance);
    if (lane >= distance) value += other;
  }
  double before = __shfl_up_sync(0xffffffff, value, 1);
  if (lane == 0) before = 0.0;
  *total = __shfl_sync(0xffffffff, value, 31);
  if (blockDim.x == 32) return before;
  part[threadIdx.x / 32] = *total;
  __syncthreads();
  double all = 0.0;
  for (int warp = 0; warp < blockDim.x / 32; warp++) {
    if (warp == threadIdx.x / 32) before += all;
    all += part[warp];
  }
  *total = all;
  __syncthreads();
  return before;
}

// bitonic: size is a power of two
__device__ void sort_falling(double* values, int size) {
  for (int length = 2; length <= size; length *= 2) {
    for (int distance = length / 2; distance > 0; distance /= 2) {
      for (int i = threadIdx.x; i < size; i += blockDim.x) {
        int other = i ^ distance;
        if (other > i) {
          bool falling = (i & length) == 0;
          double one = values[i], two = values[other];
          if (falling ? one < two : one > two) {
            values[i] = two;
            values[other] = one;
          }
        }
      }
      __syncthreads();
    }
  }
}

extern "C" __global__ void choose(const float* all_logits, const float* uniform,
                                  const double* settings, long long* tokens, double* scratch,
                                  int rows, int vocab, int padded) {
  extern __shared__ double shared[];
  double* part = shared;
  int* found = (int*)(shared + blockDim.x / 32);
  double* weights = scratch ? scratch + (size_t)blockIdx.x * (vocab + padded)
                            : shared + blockDim.x / 32 + 1;
  double* falling = weights + vocab;
  const double heat = settings[0], share = settings[1];
  const int kept = (int)settings[2], mode = (int)settings[3];
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* logits = all_logits + (size_t)row * vocab;
    double best = -1e300;
    int best_at = vocab, infinite = 0;
    for (int i = threadIdx.x; i < vocab; i += blockDim.x) {
      double logit = logits[i];
      if (!isfinite(logit)) infinite = 1;
      if (logit > best) {
        best = logit;
        best_at = i;
      }
    }
    if (threadIdx.x == 0) *found = vocab;
    if (__syncthreads_or(infinite)) {
      if (threadIdx.x == 0) tokens[row] = NOT_FINITE;
      continue;
    }
    double top = largest_of(part, best);
    if (mode == GREEDY) {
      if (best == top) atomicMin(found, best_at);
    } else {
      double own = 0.0;
      for (int i = threadIdx.x; i < vocab; i += blockDim.x) {
        weights[i] = exp(logits[i] / heat - top / heat);
        own += weights[i];
      }
      double total = sum_of(part, own);
      for (int i = threadIdx.x; i < vocab; i += blockDim.x) weights[i] /= total;
      __syncthreads();
      if (mode == FILTERED) {
        for (int i = threadIdx.x; i < padded; i += blockDim.x) {
          falling[i] = i < vocab ? weights[i] : -1.0;
        }
        __syncthreads();
        sort_falling(falling, padded);
        double least = falling[kept - 1];
        own = 0.0;
        for (int i = threadIdx.x; i < vocab; i += blockDim.x) {
          if (weights[i] < least) weights[i] = 0.0;
          own += weights[i];
        }
        double enough = sum_of(part, own) * share;
        int each = (kept + blockDim.x - 1) / blockDim.x;
        int start = min(kept, (int)threadIdx.x * each), stop = min(kept, start + each);
        own = 0.0;
        for (int i = start; i < stop; i++) own += falling[i];
        double before = sum_before(part, own, &total);
        double edge = 1.0;
        for (int i = start; i < stop; i++) {
          if (before < enough) edge = falling[i];
          before += falling[i];
        }
        edge = -largest_of(part, -edge);
        for (int i = threadIdx.x; i < vocab; i += blockDim.x) {
          if (weights[i] < edge) weights[i] = 0.0;
        }
        __syncthreads();
      }
      int each = (vocab + blockDim.x - 1) / blockDim.x;
      int start = min(vocab, (int)threadIdx.x * each), stop = min(vocab, start + each);
      own = 0.0;
      for (int i = start; i < stop; i++) own += weights[i];
      double mass = sum_before(part, own, &total);
      double draw = mode == FILTERED ? uniform[row] * total : uniform[row];
      for (int i = start; i < stop; i++) {
        mass += weights[i];
        if (mass > draw) {
          atomicMin(found, i);
          break;
        }
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) tokens[row] = *found < vocab ? *found : 0;
    __syncthreads();
  }
}
"""

SettingsArray = npt.NDArray[np.float64]


def settings_array(sampling: Sampling, vocab_size: int) -> SettingsArray:
    """What the kernel reads its settings from: the temperature, top-p, how many tokens top-k
    leaves, and which of the three ways to choose. Temperature and top-p are float32 first, as
    everywhere."""
    among = FILTERED if filters(vocab_size, sampling) else AMONG_ALL
    mode = GREEDY if sampling.greedy else among
    kept = sampling.top_k if 0 < sampling.top_k < vocab_size else vocab_size
    heat, share = np.float32(sampling.temperature), np.float32(sampling.top_p)
    return np.array([heat, share, kept, mode], np.float64)


def kernel_source() -> str:
    """The kernel as CUDA C++, with the numbers that it shares with this module."""
    names = {"NOT_FINITE": NOT_FINITE, "GREEDY": GREEDY, "FILTERED": FILTERED}
    return "".join(f"#define {name} {value}\n" for name, value in names.items()) + SOURCE


class Choice:
    """The kernel for a vocabulary, on a device."""

    def __init__(self, device: Cuda, vocab_size: int) -> None:
        (self._launch,) = device.kernels(kernel_source(), ["choose"])
        self._vocab_size = vocab_size
        self._padded = 1 << (vocab_size - 1).bit_length()
        self._threads = max(WARP, min(MAX_THREADS, self._padded))
        words, own = vocab_size + self._padded, self._threads // WARP + 1
        self._shared = 8 * (own + words)
        self._blocks = MAX_BLOCKS
        self._scratch: Buffer | c_void_p = c_void_p()
        if self._shared > SHARED_BYTES:
            self._shared, self._blocks = 8 * own, SCRATCH_BLOCKS
            self._scratch = device.allocate((SCRATCH_BLOCKS, words), np.float64)

    def __call__(self, logits: Buffer, uniform: Buffer, settings: Buffer, tokens: Buffer) -> None:
        """Queues the choice of `tokens` [B] from `logits` [B, V] and `uniform` [B], both float32,
        by `settings_array`."""
        (rows,) = uniform.shape
        blocks = min(rows, self._blocks)
        numbers = (c_int(rows), c_int(self._vocab_size), c_int(self._padded))
        buffers = (logits, uniform, settings, tokens, self._scratch)
        self._launch(blocks, self._threads, self._shared, *buffers, *numbers)
