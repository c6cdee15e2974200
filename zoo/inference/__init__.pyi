from .artifact import (
    ArtifactInfo as ArtifactInfo,
    Proof as Proof,
    SelfDescription as SelfDescription,
    StateEntry as StateEntry,
    TrainingFacts as TrainingFacts,
)
from .engine import (
    Arrays as Arrays,
    Engine as Engine,
    Logits as Logits,
    Scorer as Scorer,
    Stepper as Stepper,
)
from .infilling import (
    Filled as Filled,
    MaskedToken as MaskedToken,
)
from .runtime import (
    Artifact as Artifact,
    ProviderReport as ProviderReport,
    Runtime as Runtime,
    Source as Source,
    open_artifact as open_artifact,
    open_source as open_source,
)
from .scoring import Score as Score
from .session import Session as Session
from .task_scoring import (
    SettingScore as SettingScore,
    TaskScore as TaskScore,
    score_task as score_task,
)
