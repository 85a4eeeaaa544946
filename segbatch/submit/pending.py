"""Why a job does not start: what it reserves against what the nodes have."""

from collections.abc import Mapping, Sequence

from segbatch.errors import SegbatchError
from segbatch.submit.job import Cluster, UnreachableError, Wanted


def missing(wanted: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> str:
    """What no node has, as a sentence's second half.

    Args:
        wanted: Amounts by Ray's names of resources. They have to be on one node.
        nodes: All that each node has, taken or free.

    Returns:
        Empty where a node has it all.
    """
    if not nodes:
        return "the cluster has no node"
    most = {name: max(node.get(name, 0.0) for node in nodes) for name in wanted}
    lacks = [name for name, amount in wanted.items() if amount > most[name]]
    if lacks:
        return "; ".join(
            f"it wants {_amount(name, wanted[name])}, and "
            + (f"no node has more than {_amount(name, most[name])}" if most[name] else "no node has any")
            for name in lacks
        )
    if any(all(node.get(name, 0.0) >= amount for name, amount in wanted.items()) for node in nodes):
        return ""
    return f"no node has {' and '.join(_amount(name, amount) for name, amount in wanted.items())} together"


def lacking(cluster: Cluster, wanted: Wanted) -> str:
    """What a job reserves and no node has, as half a sentence; empty where one has it, or where it cannot be told."""
    if not wanted.by_name():
        return ""
    try:
        return missing(wanted.by_name(), cluster.nodes())
    except UnreachableError:
        raise
    except SegbatchError:  # the job is submitted: what only explains its waiting may not end it
        return ""


def _amount(name: str, amount: float) -> str:
    """An amount of a resource for people: 4 CPU, 1.5 GiB of memory, 1 tpu."""
    return f"{amount / 2**30:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}"
