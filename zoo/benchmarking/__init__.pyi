from .benchmark import (
    Benchmark as Benchmark,
    Row as Row,
    benchmark_events as benchmark_events,
)
from .roofline import (
    Limits as Limits,
    Target as Target,
    Work as Work,
)
