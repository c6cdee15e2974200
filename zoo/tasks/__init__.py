"""Tasks that say what a cell can do: what a task is, and finding one by name. Here belong the type
that plugins subclass, the drawing of its batches, and the baselines that tell a leak. Training on a
task, and testing a model on it, is done where texts are trained on and scored."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
