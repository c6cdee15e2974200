from .metadata import (
    Record as Record,
    find_records as find_records,
    read_record as read_record,
)
from .plot import (
    draw_comparison as draw_comparison,
    draw_perplexity as draw_perplexity,
)
from .run import (
    Run as Run,
    load as load,
    save as save,
)
