"""What tells the versions of files on the web apart."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

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
