"""From a text to batches: corpora, tokenizers, the dataset that both make, and windows cut from it.
What a model does with them is not known here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
