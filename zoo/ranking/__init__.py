"""Cells compared on tasks: the trials of each, what came of them, and where a cell stands."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
