"""The run folder: what training writes, reading it with and without torch, and its
pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
