from .device import choose_device as choose_device
from .language_model import LanguageModel as LanguageModel
from .parameter_budget import (
    count_parameters as count_parameters,
    largest_hidden as largest_hidden,
)
from .torch_engine import (
    ModelScorer as ModelScorer,
    ModelStepper as ModelStepper,
)
