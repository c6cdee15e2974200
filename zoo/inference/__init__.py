"""Using a trained model, whatever computes it: engines and runtimes, sampling, generation,
sessions, scoring, filling masked tokens, and what an exported file says about itself. Nothing here
imports torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
