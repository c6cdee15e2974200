from .adoption import (
    Adopted as Adopted,
    adopt_layer as adopt_layer,
    single_layer as single_layer,
)
from .blocks import block_product as block_product
from .cell import Cell as Cell
from .convolution import (
    convolve as convolve,
    convolve_step as convolve_step,
)
from .init import uniform as uniform
from .linear import (
    Complex as Complex,
    LinearCell as LinearCell,
    linear_scan as linear_scan,
)
from .matrix import (
    delta_scan as delta_scan,
    delta_step as delta_step,
    matrix_scan as matrix_scan,
    matrix_step as matrix_step,
)
from .selective import (
    selective_scan as selective_scan,
    selective_step as selective_step,
)
from .torch_cell import TorchCell as TorchCell
