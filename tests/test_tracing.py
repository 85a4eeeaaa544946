"""Traces, as a collector gets them."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from segbatch import tracing as tracing_module
from segbatch.inference.ledger import LedgerRow
from segbatch.tracing import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECONDS = {"read": 0.5, "wait": 0.25, "idle": 7.0, "predict": 1.0, "forward": 0.9, "write": 0.125}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """All spans that a collector on this machine was sent."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                names = {item.key: item.value.string_value for item in resource.resource.attributes}
                assert names["service.name"] == "segbatch"
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield spans
    server.shutdown()


def row(block: int, **changes: Any) -> LedgerRow:
    known: dict[str, Any] = {
        "scene": "a", "block": block, "checksum": "", "class_pixels": (1,), "nodata_pixels": 0, "ignored_pixels": 0,
        "confusion": None, "windows": 3, "started": 1_700_000_000.5 + block, "seconds": SECONDS,
    }  # fmt: skip
    return LedgerRow(**(known | changes))


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def test_each_block_is_a_span_with_its_stages(collector: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    with tracing("night", "mapping", pytest.fail) as tracer:
        tracer.block(row(0))
        tracer.block(row(1, error="a.tif is damaged", seconds={"read": 2.0}))
    (step,) = (span for span in collector if span.name == "mapping")
    assert (step.trace_id.hex(), step.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    assert attributes(step) == {"segbatch.run": "night"}
    assert step.status.code == 0
    first, second = sorted(
        (span for span in collector if span.name == "block"), key=lambda span: span.start_time_unix_nano
    )
    assert first.parent_span_id == second.parent_span_id == step.span_id
    assert attributes(first) == {"segbatch.scene": "a", "segbatch.block": 0, "segbatch.windows": 3}
    assert first.start_time_unix_nano == 1_700_000_000_500_000_000
    assert first.end_time_unix_nano - first.start_time_unix_nano == pytest.approx(1.875e9, abs=1e6)
    assert second.status.code == 2
    assert second.status.message == "a.tif is damaged"
    parts = [span for span in collector if span.parent_span_id == first.span_id]
    lengths = {span.name: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for span in parts}
    assert lengths == pytest.approx({name: SECONDS[name] for name in ("read", "wait", "predict", "write")}, abs=1e-3)
    ordered = sorted(parts, key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in ordered] == ["read", "wait", "predict", "write"]
    for before, after in pairwise(ordered):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert [span.name for span in collector if span.parent_span_id == second.span_id] == ["read"]


def test_each_epoch_is_a_span(collector: list[Any]) -> None:
    history = [{"epoch": 1, "loss": 0.5, "miou": None, "train_seconds": 2.0, "validate_seconds": 1.0}]
    with tracing("night", "training", pytest.fail) as tracer:
        tracer.training({"kind": "step", "loss": 1})
        tracer.training({"kind": "epoch", "history": history})
        tracer.training({"kind": "epoch"})  # what cannot be told harms nobody
    (epoch,) = (span for span in collector if span.name == "epoch")
    assert attributes(epoch) == {"segbatch.epoch": 1, "segbatch.loss": 0.5, "segbatch.miou": 0.0}
    assert epoch.end_time_unix_nano - epoch.start_time_unix_nano == pytest.approx(3e9, abs=1e3)


def test_an_error_is_told_without_its_text(collector: list[Any]) -> None:
    with pytest.raises(ValueError, match="secret"), tracing("night", "mapping", pytest.fail):
        raise ValueError("https://user:secret@host")
    (step,) = collector
    assert (step.status.code, step.status.message) == (2, "ValueError")
    assert "secret" not in str(step)


def test_a_run_sends_a_span_for_each_row(
    collector: list[Any],
    tmp_path: Path,
    tiny_bundle: Path,
    make_raster: Callable[..., str],
    paint: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    from segbatch.cli import main
    from segbatch.inference.ledger import read_ledger

    image = make_raster(tmp_path / "a.tif", paint(300, 280))
    words = ["predict", str(tiny_bundle), image, "--out", str(tmp_path / "run"), "--engine", "inline", "--core", "64"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0, capsys.readouterr().err
    rows = read_ledger(tmp_path / "run" / "ledger")
    spans = {attributes(span)["segbatch.block"]: span for span in collector if span.name == "block"}
    assert {("a", block) for block in spans} == set(rows)
    for (_, block), known in rows.items():
        assert spans[block].start_time_unix_nano == int(known.started * 1e9)


def test_a_collector_that_is_gone_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    said: list[str] = []
    with tracing("night", "mapping", said.append) as tracer:
        for number in range(3):
            tracer.block(row(number))
    assert len(said) == 1
    assert said[0].startswith("Traces cannot be sent: ")
    assert "\n" not in said[0]


def test_nothing_is_made_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing_module._ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    with tracing("night", "mapping", pytest.fail) as tracer:
        tracer.block(row(0))
        tracer.training({"kind": "epoch"})
        assert isinstance(tracer, tracing_module._Nothing)


def test_without_the_extra_a_run_is_not_traced_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    said: list[str] = []
    with tracing("night", "mapping", said.append) as tracer:
        tracer.block(row(0))
        tracer.training({"kind": "epoch"})
    (line,) = said
    assert line.startswith("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, but nothing is traced")
    assert "segbatch[otel]" in line
