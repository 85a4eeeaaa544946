"""Addresses, tokens, and what is said where no cluster is."""

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segbatch.errors import InputError, SegbatchError
from segbatch.submit.client import RayCluster, find_address, find_token, without_password
from segbatch.submit.job import Submission, UnknownJobError, UnreachableError, Wanted


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # put back what connecting changes
    return tmp_path


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """A function that starts a server and returns its URL.

    It takes status and body of all answers, or of that to the first question, which is for the version.
    """
    servers = []

    def start(status: int, body: str, later: tuple[int, str] | None = None) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, text = (status, body) if later is None or self.path == "/api/version" else later
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *details: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_address("http://head:8265/") == "http://head:8265"
    assert find_address("https://ray.example.org/cluster") == "https://ray.example.org/cluster"
    with pytest.raises(InputError, match="Name the cluster with --address http://HEAD:8265"):
        find_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(InputError, match="Name the cluster"):
        find_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "http://one:8265")
    assert find_address(None) == "http://one:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://two:8265")
    assert find_address(None) == "http://two:8265"
    for wrong in ("head:8265", "ray://head:10001", "auto", "http://", "http://head:port", "http://head:99999"):
        with pytest.raises(InputError, match="is not the URL of a cluster's dashboard"):
            find_address(wrong)
    assert without_password("https://ada:geheim@head:8265/x") == "https://head:8265/x"


def test_tokens_are_found_where_ray_finds_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_token() == ""
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("geheim")
    assert find_token() == str(home / ".ray" / "auth_token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "gone"))
    with pytest.raises(InputError, match="RAY_AUTH_TOKEN_PATH names .*gone, which does not exist"):
        find_token()
    (home / "gone").write_text("geheim")
    assert find_token() == str(home / "gone")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "geheim")
    assert find_token() == "RAY_AUTH_TOKEN"


def test_nobody_there() -> None:
    with pytest.raises(
        UnreachableError, match="There is no Ray dashboard at http://127.0.0.1:1. Is the head up"
    ) as error:
        RayCluster("http://127.0.0.1:1")
    assert error.value.exit_code == 2
    with pytest.raises(UnreachableError, match=r"at http://127.0.0.1:1\. "):
        RayCluster("http://ada:geheim@127.0.0.1:1")


@pytest.mark.parametrize(
    ("status", "body"), [(200, "hello"), (200, "{}"), (200, "[]"), (404, "no"), (500, "no"), (502, "no")]
)
def test_something_else_there(answering: Callable[..., str], status: int, body: str) -> None:
    with pytest.raises(UnreachableError, match="There is no Ray dashboard at"):
        RayCluster(answering(status, body))


def test_tokens_that_are_wanted(answering: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"wants a token: put it into RAY_AUTH_TOKEN or ~/.ray/auth_token\."):
        RayCluster(answering(401, "Unauthorized"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "geheim-und-lang")
    with pytest.raises(InputError, match="does not take the token in RAY_AUTH_TOKEN: put the cluster's own") as error:
        RayCluster(answering(403, "Forbidden"))
    assert "geheim" not in str(error.value)
    with pytest.raises(InputError, match="RAY_AUTH_MODE=disabled keeps yours back"):
        RayCluster(answering(401, "Unauthorized"))


def test_what_a_head_refuses_is_told_in_a_line(answering: Callable[..., str]) -> None:
    version = '{"ray_version": "2.60.0", "version": "4", "ray_commit": "x"}'
    traceback = "Traceback (most recent call last):\n  File x\nValueError: The disk is full.\n"
    cluster = RayCluster(answering(200, version, (500, traceback)))
    with pytest.raises(SegbatchError, match=r"^Ray says: ValueError: The disk is full\.$") as error:
        cluster.jobs()
    assert error.value.exit_code == 1
    cluster = RayCluster(answering(200, version, (404, "Job x does not exist.")))
    with pytest.raises(UnknownJobError, match="knows no job x. `segbatch jobs list` names those it knows."):
        cluster.job("x")
    cluster = RayCluster(answering(200, version, (403, "Forbidden")))
    with pytest.raises(InputError, match="does not take the token in use"):
        cluster.stop("x")


def test_a_head_that_repeats_a_secret_is_not_quoted(answering: Callable[..., str], tmp_path: Path) -> None:
    version = '{"ray_version": "2.60.0", "version": "4", "ray_commit": "x"}'
    cluster = RayCluster(answering(200, version, (500, "ValueError: what is PASSWORD=geheim-und-lang?")))
    (tmp_path / "work").mkdir()
    job = Submission("x-1", "x", str(tmp_path / "work"), (), {"PASSWORD": "geheim-und-lang"}, {}, Wanted())
    with pytest.raises(SegbatchError, match=r"^Ray says: .*ValueError: what is PASSWORD=\*\*\*\?"):
        cluster.submit(job)
