"""What a cell is, read off the cell itself: its costs, the dataflow of a step, and a diagram of
it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
