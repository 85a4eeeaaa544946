"""Files on the web: what tells their versions apart, and servers that are busy or say nothing."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from segbatch.errors import InputError
from segbatch.scenes import open_scene
from segbatch.scenes import remote as remote_files
from segbatch.scenes.remote import etag
from segbatch.storage import NoCredentialsError, ObjectPath, QuickPath

HEADERS = {
    "/tagged.tif": {"ETag": '"abc"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"},
    "/dated.tif": {"Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"},
    "/plain.tif": {},
}


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        found = HEADERS.get(self.path)
        if self.path == "/mine.tif" and self.headers.get("Authorization") == "Basic bWU6YSBi":  # me:a b
            found = {"ETag": '"of mine"'}
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


def test_an_address_with_a_password_is_asked_with_it(server: str) -> None:
    assert etag(f"{server}/mine.tif") is None
    assert etag(f"{server.replace('//', '//me:a%20b@')}/mine.tif") == '"of mine"'


@pytest.mark.parametrize("uri", ["/data/a.tif", "s3://", "/vsicurl/http://a/b.tif", "http://"])
def test_what_is_not_on_the_web_has_none(uri: str) -> None:
    assert etag(uri) is None


def test_objects_have_one_that_changes_with_them(remote: str) -> None:
    image = ObjectPath(remote) / "a.tif"
    assert etag(str(image)) is None  # whoever opens it says that it is not there
    image.put(b"one")
    first = etag(str(image))
    assert first == etag(str(image))
    image.put(b"two")
    assert etag(str(image)) not in (None, first)


def test_a_store_that_refuses_is_not_asked_for_long(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(path: ObjectPath) -> None:
        asked.append(path)
        raise NoCredentialsError(13, "no credentials were found", str(path))

    monkeypatch.setattr(remote_files, "_unknown", set())
    monkeypatch.setattr(QuickPath, "stat", refuse)
    assert [etag(f"{remote}/{name}.tif") for name in "abc"] == [None] * 3
    assert len(asked) == 1


def test_a_store_that_does_not_answer_is_named(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: ObjectPath) -> None:
        raise OSError(5, "timed out", str(path))

    monkeypatch.setattr(QuickPath, "stat", fail)
    with pytest.raises(InputError, match=r"a\.tif does not say whether it has changed: timed out\."):
        etag(f"{remote}/a.tif")


SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

content, answers = open(sys.argv[1], "rb").read(), sys.argv[2:]

class Busy(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        answer = "404" if self.path != "/a.tif" else answers.pop(0) if answers else "200"
        if answer == "silence":
            time.sleep(60)
        body, code = (content, 200) if answer == "200" else (b"", int(answer))
        asked = self.headers.get("Range")
        if asked and body:
            first, last = asked.removeprefix("bytes=").split("-")
            body, code = body[int(first) : int(last) + 1], 206
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        if body:
            self.send_header("ETag", '"of a.tif"')
        if code == 206:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(body) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass

web = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
web.daemon_threads = True
print(web.server_port, flush=True)
web.serve_forever()
"""


@pytest.fixture
def busy(tmp_path: Path, make_raster: Callable[..., str]) -> Iterator[Callable[[list[str]], str]]:
    """A function that takes how the first requests are answered ("503", "silence"), and gives an image's URL.

    The server is a process of its own: GDAL waits for it with Python's lock in its hands.
    """
    image = make_raster(tmp_path / "a.tif", np.ones((3, 20, 30), np.uint8))
    servers: list[subprocess.Popen[str]] = []

    def answering(first: list[str]) -> str:
        server = subprocess.Popen([sys.executable, "-c", SERVER, image, *first], stdout=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        return f"http://127.0.0.1:{int(server.stdout.readline())}/a.tif"

    yield answering
    for server in servers:
        server.kill()
        server.communicate()


def test_a_server_that_is_busy_is_asked_again(busy: Callable[[list[str]], str]) -> None:
    with open_scene(busy(["503"])) as scene:
        assert (scene.info.width, scene.info.height) == (30, 20)


def test_a_server_that_is_busy_is_asked_again_for_the_tag(
    busy: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag that is missing once would be another version."""
    monkeypatch.setattr(remote_files, "_PAUSES", (0.0, 0.0, None))
    assert etag(busy(["503", "429"])) == '"of a.tif"'
    assert etag(busy(["403"])) is None
    with pytest.raises(InputError, match=r"a\.tif does not say whether it has changed: Service Unavailable\."):
        etag(busy(["503"] * 3))
    with pytest.raises(InputError, match=r"does not say whether it has changed: .*refused"):
        etag("http://127.0.0.1:9/a.tif")


def test_a_server_that_says_nothing_is_given_up(
    busy: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default after a minute; what the environment says goes before."""
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with pytest.raises(InputError, match="cannot be read as an image"):
        open_scene(busy(["silence"] * 20))
