"""How fast a model runs, each way that it can be run, and what share of the machine's limits that
is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
