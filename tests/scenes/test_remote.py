"""Files on the web: what tells their versions apart, and servers that are busy or say nothing."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from segbatch.errors import InputError
from segbatch.scenes import open_scene
from segbatch.scenes import remote as remote_files
from segbatch.scenes.remote import etag
from segbatch.storage import ImagePath, NoCredentialsError, ObjectPath

HEADERS = {
    "/tagged.tif": {"ETag": '"abc"', "Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"},
    "/dated.tif": {"Last-Modified": "Tue, 24 Nov 2026 00:00:00 GMT"},
    "/plain.tif": {},
    "/%C3%A4%20b.tif": {"ETag": '"quoted"'},
}


SEEN: list[tuple[str, str, str | None]] = []


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        SEEN.append((self.command, self.path, self.headers.get("Authorization")))
        found = HEADERS.get(self.path)
        if self.path == "/mine.tif" and self.headers.get("Authorization") == "Basic bWU6YSBi":  # me:a b
            found = {"ETag": '"of mine"'}
        if self.path == "/moved.tif":
            port = self.server.server_address[1]
            found = {"Location": f"http://localhost:{port}/%C3%A4%20b.tif"}
        self.send_response(404 if found is None else 302 if "Location" in found else 200)
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


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process has found of servers."""
    monkeypatch.setattr(remote_files, "_failures", Counter())
    monkeypatch.setattr(remote_files, "_without_credentials", set())
    SEEN.clear()


def test_addresses_that_are_odd_or_none(server: str) -> None:
    """Whoever opens them tells what is wrong with them."""
    assert etag(f"{server}/ä b.tif") == '"quoted"'
    for uri in ("http://[bad/x.tif", "http://a..b/x.tif", "http://h:p/x.tif", "https://"):
        assert etag(uri) is None, uri


def test_a_password_goes_to_no_other_server(server: str) -> None:
    assert etag(f"{server.replace('//', '//me:secret@')}/moved.tif") == '"quoted"'
    (_, _, first), second = SEEN
    assert first is not None
    assert second == ("HEAD", "/%C3%A4%20b.tif", None)


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

    monkeypatch.setattr(ImagePath, "stat", refuse)
    assert [etag(f"{remote}/{name}.tif") for name in "abc"] == [None] * 3
    assert len(asked) == 1


def test_a_store_that_does_not_answer_is_named(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: ObjectPath) -> None:
        raise OSError(5, "timed out", str(path))

    monkeypatch.setattr(ImagePath, "stat", fail)
    with pytest.raises(InputError, match=r"a\.tif: whether it has changed cannot be told, its server does not answer"):
        etag(f"{remote}/a.tif")


def test_a_server_that_never_answers_is_not_asked_by_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fail(uri: str) -> None:
        asked.append(uri)
        raise OSError("silence, and ?sig=SECRET")

    monkeypatch.setattr(remote_files, "_tag_on_the_web", fail)
    for number in range(100):
        with pytest.raises(InputError, match=rf"http://h/{number}\.tif\?\*\*\*\S*: whether it has changed") as caught:
            etag(f"http://h/{number}.tif?sig=SECRET")
        assert "SECRET" not in str(caught.value)
    assert len(asked) == 8


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
    monkeypatch.setattr(remote_files, "_FIRST_PAUSE", 0)
    assert etag(busy(["503", "429"])) == '"of a.tif"'
    assert etag(busy(["403"])) is None
    with pytest.raises(InputError, match=r"a\.tif: whether it has changed cannot be told"):
        etag(busy(["503"] * 4))
    with pytest.raises(InputError, match="whether it has changed cannot be told"):
        etag("http://127.0.0.1:9/a.tif")


def test_a_server_that_says_nothing_is_given_up(
    busy: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default after a minute; what the environment says goes before."""
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    with pytest.raises(InputError, match="cannot be read as an image"):
        open_scene(busy(["silence"] * 20))
