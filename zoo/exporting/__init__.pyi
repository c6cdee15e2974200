from .export import (
    Exported as Exported,
)
from .export import (
    export_all as export_all,
)
from .exporter import Exporter as Exporter
from .parity import (
    prove_generate as prove_generate,
)
from .parity import (
    prove_sequence as prove_sequence,
)
from .parity import (
    prove_step as prove_step,
)
from .verification import Verification as Verification
