"""Every cell of the package torchrecurrent (https://pypi.org/project/torchrecurrent), as `tr-…`.

The cells are registered where torchrecurrent is installed (`pip install
recurrent-zoo[torchrecurrent]`); it is imported when one of them is built.
"""

from collections.abc import Iterable
from importlib.util import find_spec

from zoo import CellSpec, hookimpl


@hookimpl
def zoo_cells() -> Iterable[CellSpec]:
    if find_spec("torchrecurrent") is None:
        return []
    from zoo_torchrecurrent.table import ENTRIES

    return [entry.spec() for entry in ENTRIES.values()]
