from .cost import (
    Cost as Cost,
)
from .cost import (
    cost_at as cost_at,
)
from .cost import (
    cost_formulas as cost_formulas,
)
from .dataflow import (
    Box as Box,
)
from .dataflow import (
    dataflow as dataflow,
)
from .diagram import draw_cell as draw_cell
from .state import (
    StateLeaf as StateLeaf,
)
from .state import (
    describe_state as describe_state,
)
