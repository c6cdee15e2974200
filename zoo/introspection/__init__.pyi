from .cost import (
    Cost as Cost,
    cost_at as cost_at,
    cost_formulas as cost_formulas,
)
from .dataflow import (
    Box as Box,
    dataflow as dataflow,
)
from .diagram import draw_cell as draw_cell
from .state import (
    StateLeaf as StateLeaf,
    describe_state as describe_state,
)
