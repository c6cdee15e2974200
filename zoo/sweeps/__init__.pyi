from .runner import (
    RunStarted as RunStarted,
)
from .runner import (
    SweepEvent as SweepEvent,
)
from .runner import (
    TrialFinished as TrialFinished,
)
from .table import (
    Row as Row,
)
from .table import (
    read_rows as read_rows,
)
