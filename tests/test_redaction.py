"""Addresses lose their secrets and are told apart all the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.redaction import is_redacted, redact, redact_all, without_query


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:pass@host:80/a?sig=c", "http://***@host:80/a?***"),
        ("at 's3://k:s@b/x?token=y' and https://h", "at 's3://***@b/x?***' and https://h"),
        ("http://me:p@ss@host", "http://***@host"),
        ("http:/me:pass@host/a.tif", "http:/***@host/a.tif"),
        (json.dumps(["http://me:pass@host?X-Amz-Date=1", "b"]), '["http://***@host?***", "b"]'),
        ("https://h/a.tif?sig=x&se=y&sv=z: no such file.", "https://h/a.tif?***: no such file."),
        ("https://h/a.tif#access_token=x", "https://h/a.tif?***"),
        ("/vsizip//vsicurl/https://h/a.zip?sig=x", "/vsizip//vsicurl/https://h/a.zip?***"),
        ("https://h/a@2x.tif#page, https://h/b", "https://h/a@2x.tif#page, https://h/b"),
        ("a.tif?sig=x&token=y, band 1: IReadBlock failed", "a.tif?***, band 1: IReadBlock failed"),
        ("Read failed: 'a b%20c.tif?sig=x'", "Read failed: 'a b%20c.tif?***'"),
        ("/data/a.tif?b=c, is it a.tif? b=c", "/data/a.tif?b=c, is it a.tif? b=c"),
        ("plain a@b?c", "plain a@b?c"),
        ("/data/token=5/a?b.tif", "/data/token=5/a?b.tif"),
    ],
)
def test_addresses_lose_their_secrets(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown


def test_what_a_query_asks_for_tells_addresses_apart_and_signatures_do_not() -> None:
    def read(scene: int, when: int) -> str:
        return redact(f"https://h/read?scene={scene}&Expires={when}&Signature={when}x")

    def wrapped(name: str, signature: int) -> str:
        return redact(f"/vsicurl?url=https%3A%2F%2Fh%2F{name}%3Fsig%3D{signature}")

    assert read(1, 3) == read(1, 4) != read(2, 3)
    assert wrapped("a", 1) == wrapped("a", 2) != wrapped("b", 1)


_WORDS = st.text("abcXYZ019%-._~", min_size=1, max_size=12)


@given(
    st.lists(st.tuples(_WORDS, st.text("sS3cr+/=%", min_size=6)), min_size=1),
    st.sampled_from(["", "/vsicurl/", "see '"]),
)
def test_no_value_of_a_query_is_left(parameters: list[tuple[str, str]], before: str) -> None:
    address = f"{before}https://u:geheim@host/a/b.tif?" + "&".join(f"{name}={value}" for name, value in parameters)
    shown = redact(address)
    assert redact(shown) == shown
    assert "geheim" not in shown
    assert not any(value in shown for _, value in parameters)
    assert is_redacted(shown)
    assert not is_redacted(address)
    assert without_query(address) == f"{before}https://***@host/a/b.tif" or before == "see '"


@given(st.text())
def test_a_second_time_changes_nothing(text: str) -> None:
    for candidate in (text, f"https://{text}", f"/vsicurl?{text}"):
        assert redact(redact(candidate)) == redact(candidate)


def test_plain_data_is_gone_through() -> None:
    data = {"a": ["s3://k:s@b", {"b": ("x", "http://h?sig=1")}], "n": 1, "none": None}
    assert redact_all(data) == {"a": ["s3://***@b", {"b": ["x", "http://h?***"]}], "n": 1, "none": None}


def test_a_query_that_names_a_file_tells_addresses_apart() -> None:
    assert redact("https://h/get?key=a.tif") != redact("https://h/get?key=b.tif")
    assert redact("https://h/get?design=1&st=2") != redact("https://h/get?design=1&st=3")
    one, two = (redact(f"https://h/a.tif?sv=2024&st={when}&sig=S3cr{when}") for when in ("1", "2"))
    assert one == two


@pytest.mark.parametrize(
    "address", ["https://u:pa'ss@host/a.tif", "https://host/a.tif?sig=ab'ss", "'https://u:ss@h/a'"]
)
def test_quotes_hide_nothing(address: str) -> None:
    assert "ss" not in redact(f"{address} is damaged")
    assert redact(f"{address} is damaged").endswith(" is damaged")
