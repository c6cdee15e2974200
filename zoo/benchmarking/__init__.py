"""How fast a model runs in each workload, and what share of the machine's limits that is. Here
belong workloads, limits and their pictures; files are opened by `zoo.inference`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
