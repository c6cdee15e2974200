"""The contract of exporters."""

from __future__ import annotations

from typing import Protocol

from zoo.inference.artifact import ArtifactInfo
from zoo.models.language_model import LanguageModel


class Exporter(Protocol):
    """Writes models in one format."""

    suffix: str

    def build(self, model: LanguageModel, info: ArtifactInfo) -> bytes:
        """The graph `info.graph` of the model in `info.precision`, without metadata, its inputs and
        outputs named as `info` says. Raises NoStepError for a graph that needs a step of a model
        without one, VerificationError for a graph that the format's own checker refuses."""

    def seal(self, graph: bytes, info: ArtifactInfo) -> bytes:
        """The file: the graph with `info` as its metadata, and a digest of all of it."""
