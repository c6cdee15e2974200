"""Training a model on a text: the loop, its optimizers and objectives, settings that suit a text
and a machine, stopping and resuming, several processes, and loggers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
