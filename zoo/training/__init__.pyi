from .events import (
    Ended as Ended,
    Event as Event,
    Finished as Finished,
    Moved as Moved,
    Opened as Opened,
    Progress as Progress,
    Report as Report,
    Sample as Sample,
    Started as Started,
    Stopped as Stopped,
)
from .experiment import (
    resume_events as resume_events,
    train_events as train_events,
)
from .metrics import Metrics as Metrics
from .trainer import Trainer as Trainer
