"""From a trained model to published files: the contract of exporters, building and proving files,
and comparing a file with its run. The formats themselves are plugins."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
