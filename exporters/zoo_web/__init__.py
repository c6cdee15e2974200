"""Pages of the web: a folder that writes text with a model in the browser, and has what other pages
need to do the same."""

from collections.abc import Iterable

from zoo import hookimpl
from zoo.registry.specs import PackageSpec


@hookimpl
def zoo_packages() -> Iterable[PackageSpec]:
    return [
        PackageSpec(
            name="web",
            factory="zoo_web.packager:WebPackager",
            title="a page that runs the model in the browser, and a module for other pages",
            graphs=("generate", "step", "sequence"),
        )
    ]
