"""The recurrent zoo: recurrent cells as plugins, one trainer, one generator, proved export.

The names are those of the stub beside this file; each is imported when it is first used, so that
`import zoo` stays quick. Cell authors build with `zoo.nn`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
