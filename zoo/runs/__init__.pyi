from .metadata import (
    Record as Record,
)
from .metadata import (
    find_records as find_records,
)
from .metadata import (
    read_record as read_record,
)
from .plot import (
    draw_comparison as draw_comparison,
)
from .plot import (
    draw_perplexity as draw_perplexity,
)
from .run import (
    Run as Run,
)
from .run import (
    load as load,
)
from .run import (
    save as save,
)
