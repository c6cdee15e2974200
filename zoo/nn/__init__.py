"""What cell authors build with: the contract of a cell, its state as data, recurrences that run
over whole sequences, initial weights, and taking over torch.nn layers. Models made of cells stand
in `zoo.models`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
