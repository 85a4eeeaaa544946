"""A machine that is about to be taken away: what Ray is told, and how the notice is waited for."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from segbatch.cli import main
from segbatch.errors import InputError
from segbatch.submit import drain as draining

Answers = Callable[[str, str, Any], tuple[int, str]]


class Metadata(BaseHTTPRequestHandler):
    """Answers as AWS's metadata service does."""

    looks = 0
    notice = json.dumps({"action": "terminate", "time": "2026-11-28T08:22:00Z"})

    def do_PUT(self) -> None:
        has_time = int(self.headers["X-aws-ec2-metadata-token-ttl-seconds"]) > 0
        self._answer(200 if self.path == "/latest/api/token" and has_time else 400, "a token")

    def do_GET(self) -> None:
        type(self).looks += 1
        if self.headers.get("X-aws-ec2-metadata-token") != "a token":
            self._answer(401, "")
        elif self.looks == 1:
            self._answer(503, "busy")
        elif self.looks == 2 or self.path != "/latest/meta-data/spot/instance-action":
            self._answer(404, "no notice yet")
        else:
            self._answer(200, self.notice)

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    Metadata.looks = 0
    server = HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_notice_is_waited_for(metadata: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "_SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which knows nothing of this machine
    assert draining.wait_for_notice(metadata) == Metadata.notice
    assert Metadata.looks == 3


def test_a_notice_says_how_long_it_is() -> None:
    now = 1795854000.0
    text = json.dumps({"action": "stop", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 118))})
    assert draining.seconds_left(text, now) == 118
    assert draining.seconds_left(text, now + 500) == 0
    for odd in ("", "[]", "{}", '{"time": 3}', '{"time": "soon"}'):
        assert draining.seconds_left(odd, now) == 0


def test_a_machine_without_ray_is_told_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(draining, "ray_nodes", list)
    with pytest.raises(InputError, match="No Ray node"):
        draining.drain([], 5)
    with pytest.raises(SystemExit) as ended:
        main(["drain"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_ray_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does then is the fault runs' affair: here the only node is asked, and refuses or not."""
    import psutil
    import ray

    here = ray.nodes()[0]["NodeID"]
    (mine,) = (node for node in draining.ray_nodes(psutil.Process().children(recursive=True)) if node.id == here)
    assert mine.address == ray.get_runtime_context().gcs_address
    asked: list[list[str]] = []
    real = draining.subprocess.run
    monkeypatch.setattr(
        draining.subprocess, "run", lambda words, **named: asked.append(words) or real(["true"], **named)
    )
    draining.drain([mine], 7)
    assert f"--node-id={mine.id}" in asked[0]
    assert "--deadline-remaining-seconds=7" in asked[0]
