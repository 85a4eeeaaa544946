"""Files on the web: what tells their versions apart, and servers that are busy or say nothing."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from segbatch.errors import InputError
from segbatch.scenes import open_scene
from segbatch.scenes.remote import etag

HEADERS = {
    "/tagged.tif": {"ETag": '"abc"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"},
    "/dated.tif": {"Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"},
    "/plain.tif": {},
}


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        found = HEADERS.get(self.path)
        self.send_response(404 if found is None else 200)
        for name, value in (found or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    web = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/tagged.tif", '"abc"'),
        ("/dated.tif", "Tue, 24 Nov 2026 00:00:00 GMT"),
        ("/plain.tif", None),
        ("/gone.tif", None),
    ],
)
def test_the_tag_of_a_version(server: str, path: str, expected: str | None) -> None:
    assert etag(server + path) == expected


@pytest.mark.parametrize("uri", ["/data/a.tif", "s3://bucket/a.tif", "/vsicurl/http://a/b.tif", "http://"])
def test_what_is_not_on_the_web_has_none(uri: str) -> None:
    assert etag(uri) is None


@pytest.fixture
def busy(tmp_path: Path, make_raster: Callable[..., str]) -> Iterator[Callable[[list[str]], str]]:
    """A function that takes how the first requests are answered ("503", "silence"), and gives an image's URL."""
    content = Path(make_raster(tmp_path / "a.tif", np.ones((3, 20, 30), np.uint8))).read_bytes()
    answers: list[str] = []
    over = threading.Event()

    class Busy(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            answer = answers.pop(0) if answers else "200"
            if answer == "silence":
                over.wait(60)
                return
            self.send_response(int(answer))
            self.send_header("Content-Length", str(len(content) if answer == "200" else 0))
            self.end_headers()
            if answer == "200" and self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    web.daemon_threads = True
    thread = threading.Thread(target=web.serve_forever)
    thread.start()

    def answering(first: list[str]) -> str:
        answers[:] = first
        return f"http://127.0.0.1:{web.server_port}/a.tif"

    yield answering
    over.set()
    web.shutdown()
    thread.join()
    web.server_close()


def test_a_server_that_is_busy_is_asked_again(busy: Callable[[list[str]], str]) -> None:
    with open_scene(busy(["503"])) as scene:
        assert (scene.info.width, scene.info.height) == (30, 20)


def test_a_server_that_says_nothing_is_given_up(
    busy: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default after a minute and three more; what the environment says goes before."""
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with pytest.raises(InputError, match="cannot be read as an image"):
        open_scene(busy(["silence"] * 20))
