from .baselines import (
    Baseline as Baseline,
    measure_baselines as measure_baselines,
)
from .named import (
    NamedTask as NamedTask,
    find_task as find_task,
    is_task as is_task,
)
from .task import (
    Batch as Batch,
    Part as Part,
    Task as Task,
)
