"""Traces of a run for OpenTelemetry: a span a block with its stages, a span an epoch, made where the run is led.

They are sent where the standard variable ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, and nothing is made without it. A parent
is taken from ``TRACEPARENT``. What goes wrong in sending them harms nobody, nor does it where the extra ``otel`` is not
installed: the variable may be set for all programs of a cluster, by somebody who knows nothing of this run.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from segbatch import __version__
from segbatch.inference.ledger import LedgerRow
from segbatch.redaction import redact

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_STAGES = ("read", "wait", "predict", "write")
"""What a block goes through one after the other."""

_FLUSH_MILLISECONDS = 5000


class Tracer(Protocol):
    """Takes what has been done."""

    def block(self, row: LedgerRow) -> None:
        """A block has got its row."""

    def training(self, event: Mapping[str, Any]) -> None:
        """A training tells something, of which epochs become spans."""


@contextmanager
def tracing(run: str, step: str, tell: Callable[[str], None]) -> Iterator[Tracer]:
    """A span for a step of a run, as long as it lasts.

    Args:
        run: Name of the run.
        step: mapping or training.
        tell: Is called once where traces cannot be sent, or not be made.
    """
    if not _can_trace(tell):
        yield _Nothing()
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    _tell_once(tell)
    provider = TracerProvider(resource=Resource.create({"service.name": "segbatch", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    parent = TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")})
    tracer = provider.get_tracer("segbatch")
    span = tracer.start_span(step, parent, attributes={"segbatch.run": run})
    try:
        yield _Spans(tracer, span)
    except BaseException as error:
        # Its text may hold an address with a secret, and is on the terminal.
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        span.end()
        with suppress(Exception):
            provider.force_flush(_FLUSH_MILLISECONDS)
            provider.shutdown()


def _can_trace(tell: Callable[[str], None]) -> bool:
    """Whether traces are wanted, and can be made."""
    wanted = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if wanted is None:
        return False
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        tell(f"{wanted} is set, but nothing is traced: that takes pip install 'segbatch[otel]'.")
        return False
    return True


def _tell_once(tell: Callable[[str], None]) -> None:
    """Say the first thing that OpenTelemetry complains of, and nothing of the rest."""

    class Teller(logging.Handler):
        told = False

        def emit(self, record: logging.LogRecord) -> None:
            if not self.told:
                self.told = True
                tell(f"Traces cannot be sent: {redact(record.getMessage().splitlines()[0])[:200]}")

    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [Teller(level=logging.WARNING)], False


class _Nothing:
    """Nobody wants traces."""

    def block(self, row: LedgerRow) -> None:
        """See `Tracer.block`."""

    def training(self, event: Mapping[str, Any]) -> None:
        """See `Tracer.training`."""


class _Spans:
    """Makes spans of what is over.

    Args:
        tracer: OpenTelemetry's.
        parent: Span of the step.
    """

    def __init__(self, tracer: Any, parent: Any) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._step = set_span_in_context(parent)

    def block(self, row: LedgerRow) -> None:
        """See `Tracer.block`."""
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        with suppress(Exception):
            seconds = {stage: row.seconds.get(stage, 0.0) for stage in _STAGES}
            known = {"segbatch.scene": row.scene, "segbatch.block": row.block, "segbatch.windows": row.windows}
            span = self._tracer.start_span("block", self._step, attributes=known, start_time=_nanoseconds(row.started))
            if row.error is not None:
                span.set_status(Status(StatusCode.ERROR, row.error))
            moment = row.started
            for stage, length in seconds.items():
                if length > 0:
                    start = _nanoseconds(moment)
                    part = self._tracer.start_span(stage, set_span_in_context(span), start_time=start)
                    moment += length
                    part.end(_nanoseconds(moment))
            span.end(_nanoseconds(moment))

    def training(self, event: Mapping[str, Any]) -> None:
        """See `Tracer.training`."""
        if event.get("kind") != "epoch":
            return
        with suppress(Exception):
            row, end = event["history"][-1], time.time()
            seconds = row["train_seconds"] + row["validate_seconds"]
            known = {"segbatch.epoch": row["epoch"], "segbatch.loss": row["loss"], "segbatch.miou": row["miou"] or 0.0}
            span = self._tracer.start_span(
                "epoch", self._step, attributes=known, start_time=_nanoseconds(end - seconds)
            )
            span.end(_nanoseconds(end))


def _nanoseconds(moment: float) -> int:
    return int(moment * 1e9)
