from .device import choose_device as choose_device
from .language_model import LanguageModel as LanguageModel
from .parameter_budget import (
    count_parameters as count_parameters,
)
from .parameter_budget import (
    largest_hidden as largest_hidden,
)
from .torch_engine import (
    ModelScorer as ModelScorer,
)
from .torch_engine import (
    ModelStepper as ModelStepper,
)
