from .events import (
    MeasuringFailed as MeasuringFailed,
    RunStarted as RunStarted,
    SweepEvent as SweepEvent,
    TrialFinished as TrialFinished,
)
from .table import (
    Row as Row,
    read_rows as read_rows,
)
