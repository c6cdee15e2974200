"""Kernels for products of a few rows with constant weights, as a step of a small batch has them: a
library's kernels for such products leave most of a GPU idle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from zoo_ort.graph import Graph, Node

Shapes = Mapping[str, tuple[int, ...]]
MAX_ROWS = 32  # of a product that is computed here
MAX_SLICES = 32
MANY_THREADS = 16_384  # what keeps a large GPU busy
PRODUCT = """
__device__ void NAME(const int at, void* p0, void* p1, void* p2) {
  const int column = at % (COLUMNS / ACROSS) * ACROSS, slice = at / (COLUMNS / ACROSS);
  const int start = slice * EACH, stop = min(DEPTH, start + EACH);
  const float* __restrict__ x = (const float*)p0;
  const float* __restrict__ w = (const float*)p1 + column;
  float* __restrict__ y = (float*)p2 + slice * (ROWS * COLUMNS) + column;
  float sums[ROWS][ACROSS] = {};
  INNER
  for (int row = 0; row < ROWS; row++) {
    for (int i = 0; i < ACROSS; i++) y[row * COLUMNS + i] = sums[row][i];
  }
}
"""
WIDE = """
  #pragma unroll 2
  for (int k = start; k < stop; k += 4) {
    const float2 a = *(const float2*)(w + (size_t)k * COLUMNS);
    const float2 b = *(const float2*)(w + (size_t)(k + 1) * COLUMNS);
    const float2 c = *(const float2*)(w + (size_t)(k + 2) * COLUMNS);
    const float2 d = *(const float2*)(w + (size_t)(k + 3) * COLUMNS);
    #pragma unroll
    for (int row = 0; row < ROWS; row++) {
      const float4 v = *(const float4*)(x + row * DEPTH + k);
      sums[row][0] = fmaf(v.x, a.x, fmaf(v.y, b.x, fmaf(v.z, c.x, fmaf(v.w, d.x, sums[row][0]))));
      sums[row][1] = fmaf(v.x, a.y, fmaf(v.y, b.y, fmaf(v.z, c.y, fmaf(v.w, d.y, sums[row][1]))));
    }
  }
"""
NARROW = """
  for (int k = start; k < stop; k++) {
    const float a = w[(size_t)k * COLUMNS];
    #pragma unroll
    for (int row = 0; row < ROWS; row++) sums[row][0] = fmaf(x[row * DEPTH + k], a, sums[row][0]);
  }
"""


def is_product(node: Node, graph: Graph, shapes: Shapes, dtypes: Mapping[str, np.dtype]) -> bool:
    """Whether the node is a product of few rows with a constant."""
    if node.op != "MatMul" or node.inputs[1] not in graph.constants:
        return False
    left, right = (shapes[name] for name in node.inputs)
    few = len(left) == len(right) == 2 and left[0] <= MAX_ROWS
    numbers = all(dtypes[name] == np.float32 for name in node.inputs)
    return few and numbers and node.inputs[0] not in graph.constants


class Product:
    """A matrix product [rows, depth] x [depth, columns] of few rows. A thread multiplies a slice of
    the depth, for two columns and all rows; what reads the product adds up the slices. So there are
    enough threads to read the weights at the speed of the memory, and none waits for another."""

    def __init__(self, name: str, node: Node, shapes: Shapes) -> None:
        self.name = name
        left, right = node.inputs
        (result,) = node.outputs
        self.rows, self.depth = shapes[left]
        self.columns = shapes[right][1]
        self._wide = self.columns % 2 == 0 and self.depth % 4 == 0
        self._across = 2 if self._wide else 1
        threads = self.columns // self._across
        slices = min(MAX_SLICES, -(-MANY_THREADS // threads))
        self._each = -(-self.depth // slices)
        self._each += -self._each % 4
        self.slices = -(-self.depth // self._each)
        self.elements = threads * self.slices
        self.parts = f"{result}/slices"
        self.buffers = (left, right, self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of `parts`."""
        return self.slices, self.rows, self.columns

    @property
    def source(self) -> str:
        """`name(at, p0, p1, p2)`, for the threads 0 to `elements`."""
        names = {
            "NAME": self.name, "ROWS": self.rows, "DEPTH": self.depth, "COLUMNS": self.columns,
            "ACROSS": self._across, "EACH": self._each,
        }  # fmt: skip
        text = PRODUCT.replace("INNER", WIDE if self._wide else NARROW)
        for name, value in names.items():
            text = text.replace(name, str(value))
        return text
