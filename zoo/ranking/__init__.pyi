from .published import (
    published_rows as published_rows,
)
from .ranks import (
    Outcome as Outcome,
    RankRow as RankRow,
    read_ranks as read_ranks,
)
from .runner import (
    rank as rank,
    rank_events as rank_events,
)
