"""Many cells trained under the same settings: running them, the table, the manifest, the
picture."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
