from .adoption import (
    Adopted as Adopted,
)
from .adoption import (
    adopt_layer as adopt_layer,
)
from .adoption import (
    single_layer as single_layer,
)
from .cell import Cell as Cell
from .convolution import (
    convolve as convolve,
)
from .convolution import (
    convolve_step as convolve_step,
)
from .init import uniform as uniform
from .linear import (
    Complex as Complex,
)
from .linear import (
    LinearCell as LinearCell,
)
from .linear import (
    linear_scan as linear_scan,
)
from .matrix import (
    matrix_scan as matrix_scan,
)
from .matrix import (
    matrix_step as matrix_step,
)
from .torch_cell import TorchCell as TorchCell
