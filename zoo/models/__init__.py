"""Models made of cells: the language model, its size for a number of parameters, and PyTorch as an
engine. How a model is trained stands in `zoo.training`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
