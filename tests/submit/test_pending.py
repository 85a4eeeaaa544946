import pytest

from segbatch.errors import SegbatchError
from segbatch.submit.job import UnreachableError, Wanted
from segbatch.submit.pending import lacking, missing

NODES = [{"CPU": 4.0, "memory": 8.0 * 2**30}, {"CPU": 16.0, "GPU": 1.0, "memory": 4.0 * 2**30}]


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"CPU": 16}, ""),
        ({"CPU": 2, "GPU": 1, "memory": 4 * 2**30}, ""),
        ({"CPU": 17}, "it wants 17 CPU, and no node has more than 16 CPU"),
        ({"CPU": 64, "GPU": 8}, "it wants 64 CPU, and no node has more than 16 CPU; it wants 8 GPU, and no node has "
         "more than 1 GPU"),
        ({"tpu": 1}, "it wants 1 tpu, and no node has any"),
        ({"memory": 12 * 2**30}, "it wants 12 GiB of memory, and no node has more than 8 GiB of memory"),
        ({"GPU": 1, "memory": 6 * 2**30}, "no node has 1 GPU and 6 GiB of memory together"),
    ],
)  # fmt: skip
def test_what_no_node_has_is_named(wanted: dict[str, float], why: str) -> None:
    assert missing(wanted, NODES) == why


def test_a_cluster_without_nodes() -> None:
    assert missing({"CPU": 1}, []) == "the cluster has no node"


def test_a_job_that_reserves_nothing_lacks_nothing(cluster) -> None:
    assert lacking(cluster, Wanted()) == ""
    assert lacking(cluster, Wanted(cpus=1, memory=0)) == "the cluster has no node"


def test_nodes_that_cannot_be_told_end_nothing(cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception):
        def nodes() -> None:
            raise error

        return nodes

    monkeypatch.setattr(cluster, "nodes", fail(SegbatchError("too many nodes")))
    assert lacking(cluster, Wanted(cpus=1)) == ""
    monkeypatch.setattr(cluster, "nodes", fail(UnreachableError("gone")))
    with pytest.raises(UnreachableError):
        lacking(cluster, Wanted(cpus=1))
