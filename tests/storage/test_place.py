"""What users write as an output: a folder, or a place in an object store."""

import pickle
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.storage import ObjectPath, is_remote, is_url, place

NAME = st.text("abcXYZ012._- é", min_size=1, max_size=8).filter(lambda name: name.strip(". ") == name)


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_url_of_a_store_is_a_place_in_it(scheme: str) -> None:
    found = place(f"{scheme}://bucket/some/run/")
    assert is_remote(found)
    assert str(found) == f"{scheme}://bucket/some/run"
    assert str(place(found)) == str(found)
    assert found.is_absolute()
    assert found.absolute() == found.resolve() == found


def test_all_else_is_a_path(tmp_path: Path) -> None:
    assert place("runs/a") == Path("runs/a")
    assert place(tmp_path) == tmp_path
    assert not is_remote(place("s3/bucket"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://host/run", "none of s3://, gs://, az://, nor a folder"),
        ("s3://bucket", "has to be s3://bucket/name"),
        ("s3://", "has to be s3://bucket/name"),
        ("s3://bucket/../other", "has to be s3://bucket/name"),
        ("s3://key:secret@bucket/run", "credentials come from the environment"),
        ("s3://bucket/run?region=x", "holds more than a bucket and a name"),
    ],
)
def test_what_is_neither_is_refused_in_a_line(text: str, why: str) -> None:
    assert is_url(text)
    with pytest.raises(ValueError, match=why) as caught:
        place(text)
    assert "\n" not in str(caught.value)


@given(st.lists(NAME, min_size=1, max_size=4), st.lists(NAME, min_size=1, max_size=3), NAME)
def test_names_are_joined_and_parted_as_paths_are(above: list[str], below: list[str], name: str) -> None:
    base, oracle = ObjectPath("/".join(["s3://bucket", *above])), PurePosixPath("/s3/bucket", *above)
    path, known = base.joinpath(*below), oracle.joinpath(*below)
    assert str(path).removeprefix("s3://") == str(known).removeprefix("/s3/")
    assert isinstance(path, ObjectPath)
    assert path.name == known.name
    assert path.relative_to(base).as_posix() == known.relative_to(oracle).as_posix()
    assert str(path.with_name(name)).removeprefix("s3://") == str(known.with_name(name)).removeprefix("/s3/")
    assert str(path.parent).removeprefix("s3://") == str(known.parent).removeprefix("/s3/")
    assert path.is_relative_to(base)


@given(st.lists(NAME, min_size=1, max_size=4))
def test_a_place_travels_between_processes(names: list[str]) -> None:
    path = ObjectPath("s3://bucket").joinpath(*names)
    again = pickle.loads(pickle.dumps(path))  # our own
    assert again == path
    assert hash(again) == hash(path)
    assert str(again) == str(path)
