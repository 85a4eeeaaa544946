"""Standard error as JSON lines, whoever writes there."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.log import JsonLines, level_of, say_error, speaking

Said = Callable[[], list[dict[str, Any]]]


def said(stream: io.StringIO) -> list[dict[str, Any]]:
    text = stream.getvalue()
    assert not text or text.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


@given(st.text(), st.sampled_from(["info", "warning", "error"]), st.dictionaries(st.text(min_size=1), st.text()))
def test_any_message_is_one_line_of_json(message: str, level: Any, fields: dict[str, str]) -> None:
    stream = io.StringIO()
    fields = {name: value for name, value in fields.items() if name not in ("time", "level", "message")}
    JsonLines(stream).say(message, level, fields)
    (found,) = said(stream)
    assert found["message"] == message.strip()
    assert found["level"] == level
    assert fields.items() <= found.items()
    moment = datetime.fromisoformat(found["time"])
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert found["time"].endswith("Z")


def test_what_json_does_not_have_is_null_or_text() -> None:
    stream = io.StringIO()
    JsonLines(stream).say("x", "info", {"loss": float("nan"), "all": [float("inf"), 1.5], "path": object})
    (found,) = said(stream)
    assert (found["loss"], found["all"]) == (None, [None, 1.5])
    assert "object" in found["path"]


def test_surrogates_of_odd_file_names_do_no_harm() -> None:
    stream = io.StringIO()
    JsonLines(stream).say("a\udcff.tif", "info", {})
    assert stream.getvalue().isascii()
    assert said(stream)[0]["message"] == "a\udcff.tif"


@pytest.fixture
def standard_error(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    """What was said on standard error, as objects."""
    return lambda: said(io.StringIO(capsys.readouterr().err))


def test_what_others_write_becomes_messages(standard_error: Said) -> None:
    before = sys.stderr
    with speaking("json"):
        print("two\nlines", file=sys.stderr)  # noqa: T201
        print(file=sys.stderr)  # noqa: T201
        print("Error: no such file", file=sys.stderr)  # noqa: T201
        logging.StreamHandler().handle(logging.makeLogRecord({"msg": "from a log"}))
        sys.stderr.write(warnings.formatwarning("this is old", UserWarning, "a.py", 3))
        for done in range(3):
            sys.stderr.write(f"\rfetching {done}/2")
        sys.stderr.write("\n")
        sys.stderr.write("no end")
    found = [(line["level"], line["message"]) for line in standard_error()]
    assert found[:3] == [("info", "two\nlines"), ("error", "Error: no such file"), ("info", "from a log")]
    assert found[3][0] == "warning"
    assert "UserWarning: this is old" in found[3][1]
    assert found[4:] == [("info", "fetching 2/2"), ("info", "no end")]
    assert sys.stderr is before


def test_threads_do_not_mix_their_messages(standard_error: Said) -> None:
    def talk(name: str) -> None:
        for number in range(200):
            sys.stderr.write(f"{name} {number}\n")

    with speaking("json"):
        threads = [threading.Thread(target=talk, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    messages = {line["message"] for line in standard_error()}
    assert messages == {f"{name} {number}" for name in "abc" for number in range(200)}


def test_text_stays_text(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking("text"):
        say_error("Error: it is broken", code=1)
        print("as it is", file=sys.stderr)  # noqa: T201
    assert capsys.readouterr().err == "Error: it is broken\nas it is\n"


def test_errors_have_their_level_and_fields(standard_error: Said) -> None:
    with speaking("json"):
        say_error("Error: it is broken", traceback="here")
        say_error("\nStopped.", "warning")
    first, second = standard_error()
    assert (first["level"], first["message"], first["traceback"]) == ("error", "it is broken", "here")
    assert (second["level"], second["message"]) == ("warning", "Stopped.")


@pytest.mark.parametrize(
    ("message", "level"),
    [
        ("Error: no", "error"),
        ("Usage: segbatch\n\nError: no such option", "error"),
        ("Traceback (most recent call last):", "error"),
        ("/a/b.py:12: FutureWarning: old\n  call()", "warning"),
        ("Warning: mind", "warning"),
        ("Errors are counted", "info"),
        ("a line about a Warning: sign", "info"),
    ],
)
def test_levels_of_what_others_say(message: str, level: str) -> None:
    assert level_of(message) == level
