from .published import (
    published_rows as published_rows,
)
from .ranks import (
    RankRow as RankRow,
    Tested as Tested,
    read_ranks as read_ranks,
)
from .runner import (
    rank as rank,
    rank_events as rank_events,
)
