from .benchmark import (
    Benchmark as Benchmark,
)
from .benchmark import (
    Row as Row,
)
from .benchmark import (
    benchmark_events as benchmark_events,
)
from .roofline import (
    Limits as Limits,
)
from .roofline import (
    Target as Target,
)
