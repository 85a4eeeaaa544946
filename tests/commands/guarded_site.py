"""A web server that gives its files to those who know the password and the signatures; a process of its own.

GDAL opens files without giving other threads of Python a turn.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

FOLDER, KNOWN = Path(sys.argv[1]), Path(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(None)

    def answer(self, body: bytes | None) -> None:
        known = json.loads(KNOWN.read_text())
        parts = urlsplit(self.path)
        signed = {name: values[0] for name, values in parse_qs(parts.query).items()} == known["signatures"]
        file = FOLDER / parts.path.lstrip("/")
        if self.headers.get("Authorization") != known["authorization"]:
            self.head(401, 0, {"WWW-Authenticate": 'Basic realm="scenes"'})
        elif not signed or not file.is_file():
            self.head(404 if signed else 403, 0, {})
        else:
            content = file.read_bytes()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, last = 0, len(content) - 1
            if wanted:
                first, last = int(wanted[1]), min(last, int(wanted[2] or last))
            part = content[first : last + 1]
            about = {"Content-Range": f"bytes {first}-{last}/{len(content)}"} if wanted else {}
            self.head(206 if wanted else 200, len(part), {"Accept-Ranges": "bytes", **about})
            self.wfile.write(part if body is None else body)

    def head(self, code: int, length: int, more: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**more, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
