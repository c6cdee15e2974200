from .events import (
    Event as Event,
)
from .events import (
    Finished as Finished,
)
from .events import (
    Progress as Progress,
)
from .events import (
    Report as Report,
)
from .events import (
    Sample as Sample,
)
from .events import (
    Started as Started,
)
from .events import (
    Stopped as Stopped,
)
from .experiment import (
    resume_events as resume_events,
)
from .experiment import (
    train_events as train_events,
)
from .metrics import Metrics as Metrics
from .trainer import Trainer as Trainer
