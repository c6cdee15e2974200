"""`/metrics`, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from zoo.serving.models import ServedModel
from zoo.serving.stream_store import StreamStore

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics(Collector):
    """What one process of the server does."""

    def __init__(self, models: Mapping[str, ServedModel], streams: StreamStore) -> None:
        self._models, self._streams = models, streams
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.requests = Counter(
            "zoo_requests", "Requests, by path and status.", ("path", "status"),
            registry=self._registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "zoo_first_event_seconds", "Time from a request's start to the first event of its text",
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip

    def collect(self) -> Iterator[Metric]:
        written = CounterMetricFamily("zoo_tokens_written", "Tokens written.", labels=["model"])
        read = CounterMetricFamily("zoo_tokens_read", "Tokens of prompts read.", labels=["model"])
        chunks = CounterMetricFamily("zoo_chunks", "Runs that wrote tokens.", labels=["model"])
        running = GaugeMetricFamily("zoo_rows_running", "Texts in work.", labels=["model"])
        waiting = GaugeMetricFamily("zoo_rows_waiting", "Texts that wait.", labels=["model"])
        for name, model in self._models.items():
            scheduler = model.scheduler
            written.add_metric([name], scheduler.tokens_written)
            read.add_metric([name], scheduler.tokens_read)
            chunks.add_metric([name], scheduler.chunks)
            running.add_metric([name], scheduler.running)
            waiting.add_metric([name], scheduler.waiting)
        yield from (written, read, chunks, running, waiting)
        yield GaugeMetricFamily("zoo_streams", "Streams that are kept.", len(self._streams))
        yield GaugeMetricFamily(
            "zoo_streams_in_memory", "Streams in memory.", self._streams.in_memory
        )

    def text(self) -> bytes:
        return generate_latest(self._registry)
