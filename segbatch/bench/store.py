"""What went through Ray's object store."""

import ray
from ray._private.internal_api import node_stats


def store_traffic() -> tuple[int, int]:
    """Bytes that were put into the object store, and bytes of it that went to the disk, since Ray was started.

    Ray counts them itself, over all nodes; it tells nowhere else than here.
    """
    written = spilled = 0
    for node in ray.nodes():
        if node["Alive"]:
            stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats
            written += stats.cumulative_created_bytes
            spilled += stats.spilled_bytes_total
    return written, spilled
