"""Runs that are disturbed end as if nothing had been; see `python -m tests.chaos` for as many of them as one likes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.fault import Fault, Skip
from tests.chaos.ground import Ground
from tests.chaos.kills import Writes
from tests.chaos.kinds import KINDS
from tests.chaos.runner import Outcome, run
from tests.chaos.verdict import State, complaints, differences, leftovers

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")

RAY = ("driver-ray", "sigterm-ray", "worker", "actor", "node", "drain", "network", "training")
SLOW = [
    pytest.param(kind, marks=[pytest.mark.slow, *([pytest.mark.ray] if kind in RAY else [])])
    for kind in KINDS
]  # fmt: skip


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("chaos"))
    with ground.stack:
        yield ground


@pytest.fixture(scope="module")
def disturb(ground: Ground) -> Callable[[type[Fault], int], Outcome]:
    """A function (kind, seed) that makes a run and finds that it passed."""

    def check(kind: type[Fault], seed: int) -> Outcome:
        try:
            kind.check()
        except Skip as reason:
            pytest.skip(str(reason))
        outcome = run(kind, seed, ground)
        assert outcome.problems == [], outcome
        return outcome

    return check


def test_a_command_that_dies_before_a_file_is_moved_ends_as_a_clean_one(
    disturb: Callable[[type[Fault], int], Outcome],
) -> None:
    assert disturb(Writes, 0).faults


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", SLOW)
def test_faults_cost_no_byte(disturb: Callable[[type[Fault], int], Outcome], kind: str, seed: int) -> None:
    disturb(KINDS[kind], seed)


def test_what_is_wrong_is_found() -> None:
    clean = State({"masks/a.tif": "1"}, {"miou": 0.5}, frozenset({"masks", "masks/a.tif"}))
    names = frozenset({"masks", "masks/.parts", "masks/.parts/0.part"})
    assert differences(clean, clean) == leftovers(clean, clean) == []
    assert differences(State({"masks/a.tif": "2"}, {"miou": 0.6}, names), clean) == [
        "masks/a.tif differs",
        "miou differs",
        "masks/a.tif is missing",
    ]
    assert leftovers(State({}, {}, names), clean) == ["masks/.parts"]


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (0, "Mapping\n", []),
        (1, "Error: the disk is full.\n", ["exit code 1"]),
        (2, "Traceback (most recent call last):\n  ...\nError: no.\n", ["a traceback"]),
        (2, "", ["exit code 2 without a word"]),
        (2, "Error: a\nb\nc\nd\n", ["an error of many lines"]),
    ],
)
def test_how_a_command_may_end(code: int, said: str, expected: list[str]) -> None:
    assert complaints(code, said, {0, 2}) == expected
