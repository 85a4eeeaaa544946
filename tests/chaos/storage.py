"""A web server with the scenes that has bad times, and runs that read from it."""

import random
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.chaos.fault import Fault
from tests.chaos.process import environment

TROUBLES = ("error 500", "hang", "hang up", "half")
_BAD_SECONDS = 8.0
_HANG_SECONDS = 20.0
_USUAL_REQUESTS = 30
"""Of a clean run, more or less."""

_IMPATIENT = {
    "GDAL_HTTP_LOW_SPEED_TIME": "2",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "1",
    "GDAL_HTTP_RETRY_DELAY": "0.2",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}
"""A test cannot wait as long as people do."""


@dataclass(frozen=True)
class BadTime:
    """When a server answers badly, and how.

    Args:
        trouble: One of `TROUBLES`.
        first: Number of the first request that is answered badly.
        requests: How many are.
    """

    trouble: str
    first: int
    requests: int


class Server(ThreadingHTTPServer):
    """Serves the files of a folder, with ranges.

    Args:
        folder: The files.
        bad: When it answers badly; over for good some seconds after it began.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, folder: Path, bad: BadTime) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.bad = folder, bad
        self.requests = self.failed = 0
        self._since: float | None = None
        self._lock = threading.Lock()

    def trouble(self) -> str | None:
        """Count a request: how it is answered badly, or None."""
        with self._lock:
            number, self.requests = self.requests, self.requests + 1
            if not self.bad.first <= number or self.failed >= self.bad.requests:
                return None
            self._since = self._since or time.monotonic()
            if time.monotonic() - self._since > _BAD_SECONDS:
                return None
            self.failed += 1
            return self.bad.trouble

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.server.folder / Path(self.path).name
        trouble = self.server.trouble()
        if trouble == "error 500":
            self._plain(500)
            return
        if trouble == "hang":
            time.sleep(_HANG_SECONDS)
        if trouble in ("hang", "hang up"):
            self.close_connection = True
            return
        if not path.is_file():
            self._plain(404)
            return
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), min(int(wanted[2] or size), size - 1)) if wanted else (0, size - 1)
        if first >= size:
            self._plain(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if with_body:
            with path.open("rb") as file:
                file.seek(first)
                content = file.read(last - first + 1)
            if trouble == "half":
                content = content[: len(content) // 2]
                self.close_connection = True
            with suppress(OSError):
                self.wfile.write(content)

    def _plain(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def draw(rng: random.Random, trouble: str) -> BadTime:
    """A bad time somewhere in a run."""
    return BadTime(trouble, rng.randint(0, _USUAL_REQUESTS), rng.randint(1, 30))


class Storage(Fault):
    """Scenes and labels on a web server that has a bad time: a block that cannot be read is noted, and done later."""

    kind = "storage"
    codes = frozenset({1, 2, 3})

    def begin(self) -> None:
        """See `Fault.begin`."""
        assert self.ground.clean is not None
        self.server = Server(self.ground.job.folder, draw(self.rng, TROUBLES[self.seed % len(TROUBLES)]))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def words(self) -> list[str]:
        """See `Fault.words`."""
        url = f"http://127.0.0.1:{self.server.server_port}"
        return self.ground.job.command(self.out, self.engine, source=url)

    def environment(self, number: int) -> dict[str, str]:
        """See `Fault.environment`."""
        return environment(self.notes) | _IMPATIENT

    def strike(self, command: Any, number: int) -> None:
        """See `Fault.strike`."""
        before = self.server.failed
        command.wait(self.seconds)
        if failed := self.server.failed - before:
            bad = self.server.bad
            self.hit(f"{bad.trouble} from request {bad.first} on, {failed} times")

    def end(self) -> None:
        """See `Fault.end`."""
        if hasattr(self, "server"):
            self.server.shutdown()
            self.server.server_close()

    def bound(self) -> float:
        """See `Fault.bound`; a block whose reading failed was never done."""
        from tests.chaos.verdict import all_rows

        return super().bound() + sum(row.error is not None for row in all_rows(self.out))
