from .data import TrainingData as TrainingData
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
from .reading import read_data as read_data
from .task_data import TaskData as TaskData
from .text_data import TextData as TextData
from .trainer import Trainer as Trainer
