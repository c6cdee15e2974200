"""What plugins supply: hooks, the specs that they give, and finding both again by name. Nothing
here knows torch, or what a spec's factory builds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
