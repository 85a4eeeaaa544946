"""Sums over the ledger's rows against the rows themselves, in whatever order and however often these come."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segbatch.inference.ledger import LedgerRow, LedgerWriter
from segbatch.inference.tally import SceneTally, tally_ledger

CLASSES = 3


def done(scene: str, block: int, labelled: bool = True) -> LedgerRow:
    """A block whose pixels depend on its scene and number alone, as those of a deterministic model do."""
    rng = np.random.default_rng([block, len(scene)])
    mask, label = (rng.choice(np.array([0, 1, 2, 255], np.uint8), (5, 7)) for _ in range(2))
    return LedgerRow.of(
        scene,
        block,
        mask,
        label if labelled else None,
        num_classes=CLASSES,
        windows=1,
        started=100.0 + block,
        seconds={"read": 0.5, "wait": 7.0, "predict": 1.0, "forward": 0.75, "write": 0.25},
    )


def failed(scene: str, block: int, why: str = "damaged") -> LedgerRow:
    return LedgerRow.failed(scene, block, why, num_classes=CLASSES, started=50.0)


rows = st.lists(
    st.builds(
        lambda scene, block, fails: failed(scene, block) if fails else done(scene, block),
        st.sampled_from(["a", "bb"]),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=30,
)


@given(rows)
def test_each_block_counts_once(given_rows: list[LedgerRow]) -> None:
    """Against a plain dictionary of the blocks that ever succeeded."""
    tally = SceneTally.empty(6, CLASSES)
    for row in given_rows:
        if row.scene == "a":
            tally.add(row)
    succeeded = {row.block: row for row in given_rows if row.scene == "a" and row.error is None}
    others = {row.block for row in given_rows if row.scene == "a"} - set(succeeded)
    assert set(np.flatnonzero(tally.done).tolist()) == set(succeeded)
    assert set(tally.errors) == others
    assert tally.is_whole == (len(succeeded) == 6)
    assert (tally.error is None) == (not others)
    for name in ("class_pixels", "nodata_pixels", "ignored_pixels"):
        expected = np.sum([getattr(row, name) for row in succeeded.values()], axis=0)
        np.testing.assert_array_equal(getattr(tally, name), expected if succeeded else 0 * tally.class_pixels[0])
    if succeeded:
        assert tally.confusion is not None
        np.testing.assert_array_equal(tally.confusion, np.sum([row.confusion for row in succeeded.values()], axis=0))
        assert tally.seconds == 1.75 * len(succeeded)
        assert tally.ended == 101.75 + max(succeeded)
    else:
        assert tally.confusion is None


def test_a_ledger_in_several_files(tmp_path: Path) -> None:
    one, two = LedgerWriter(tmp_path), LedgerWriter(tmp_path)
    one.append(done("a", 0))
    two.append(failed("a", 1, "second"))
    two.append(failed("a", 0, "before or after, it was done"))
    one.append(done("bb", 0, labelled=False))
    one.append(done("not of the run", 0))
    one.append(done("bb", 7))  # of a grid that the scene had once
    found = tally_ledger(tmp_path, {"a": 2, "bb": 1, "never begun": 3}, CLASSES)
    assert list(found) == ["a", "bb", "never begun"]
    assert found["a"].done.tolist() == [True, False]
    assert found["a"].errors == {1: "second"}
    assert found["bb"].is_whole
    assert found["bb"].confusion is None
    assert found["bb"].class_pixels.tolist() == list(done("bb", 0).class_pixels)
    assert not found["never begun"].done.any()
    assert found["never begun"].error is None


def test_without_a_ledger_nothing_is_done(tmp_path: Path) -> None:
    assert not tally_ledger(tmp_path / "none", {"a": 2}, CLASSES)["a"].done.any()
