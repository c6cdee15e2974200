"""Run folders, opened by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import ProviderError, UsageError
from zoo.inference.runtime import ProviderReport, Source, Threads
from zoo.models.device import choose_device
from zoo.models.language_model import LanguageModel, fingerprint
from zoo.models.torch_engine import ModelScorer, ModelStepper
from zoo.registry.registry import Registry
from zoo.registry.specs import FULL
from zoo.runs.run import load


@dataclass(frozen=True)
class RunSource(Source):
    """An opened run folder."""

    model: LanguageModel

    @property
    def fingerprint(self) -> str:
        return f"{fingerprint(self.model)}-{FULL}"


class PyTorchRuntime:
    """The `zoo.inference.Runtime` of run folders, which it knows by their `config.json`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def open(
        self,
        files: Sequence[Path],
        provider: str = "auto",
        threads: Threads = None,
        *,
        scores: bool = False,
    ) -> Source:
        """UsageError for `threads`: PyTorch has one number of threads for the whole process."""
        if threads is not None:
            raise UsageError(
                "a run folder runs in PyTorch, whose number of threads is set by "
                "torch.set_num_threads or OMP_NUM_THREADS; leave threads out."
            )
        path = files[0]
        device = choose_device(provider)
        run = load(path if path.is_dir() else path.parent, self._registry)
        model = run.model.to(device)
        engine = ModelStepper(model) if model.causal else ModelScorer(model)
        return RunSource(engine, run.tokenizer_or_none, run.prompt, f"PyTorch on {device}", model)

    def probe(self) -> Sequence[ProviderReport]:
        try:
            choose_device("cuda")
        except ProviderError as error:
            return [ProviderReport("cpu", True), ProviderReport("cuda", False, str(error))]
        return [ProviderReport("cpu", True), ProviderReport("cuda", True)]
