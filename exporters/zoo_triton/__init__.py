"""Packages exported models as a model repository of the NVIDIA Triton Inference Server."""

from collections.abc import Iterable

from zoo import hookimpl
from zoo.registry.specs import PackageSpec


@hookimpl
def zoo_packages() -> Iterable[PackageSpec]:
    return [
        PackageSpec(
            name="triton",
            factory="zoo_triton.packager:TritonPackager",
            title="model repository for NVIDIA Triton Inference Server",
            graphs=("step", "generate", "sequence"),
        )
    ]
