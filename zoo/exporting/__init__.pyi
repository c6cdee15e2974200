from .export import (
    Exported as Exported,
    export_all as export_all,
)
from .exporter import (
    Exporter as Exporter,
    ModuleExporter as ModuleExporter,
)
from .modules import ModuleSpec as ModuleSpec
from .packaging import (
    Packager as Packager,
    package as package,
)
from .parity import (
    prove_generate as prove_generate,
    prove_sequence as prove_sequence,
    prove_step as prove_step,
)
from .verification import Verification as Verification
