from .artifact import (
    ArtifactInfo as ArtifactInfo,
)
from .artifact import (
    Proof as Proof,
)
from .artifact import (
    SelfDescription as SelfDescription,
)
from .artifact import (
    StateEntry as StateEntry,
)
from .artifact import (
    TrainingFacts as TrainingFacts,
)
from .engine import (
    Arrays as Arrays,
)
from .engine import (
    Engine as Engine,
)
from .engine import (
    Logits as Logits,
)
from .engine import (
    Scorer as Scorer,
)
from .engine import (
    Stepper as Stepper,
)
from .infilling import (
    Filled as Filled,
)
from .infilling import (
    Gap as Gap,
)
from .runtime import (
    Artifact as Artifact,
)
from .runtime import (
    ProviderReport as ProviderReport,
)
from .runtime import (
    Runtime as Runtime,
)
from .runtime import (
    Source as Source,
)
from .runtime import (
    open_artifact as open_artifact,
)
from .runtime import (
    open_source as open_source,
)
from .scoring import Score as Score
from .session import Session as Session
