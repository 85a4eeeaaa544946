"""All kinds of faults by name."""

from tests.chaos.disk import Disk
from tests.chaos.fault import Fault
from tests.chaos.kills import Driver, DriverOnRay, Terminate, TerminateOnRay, Writes
from tests.chaos.network import Network
from tests.chaos.nodes import Actor, Drain, Lost, Node, Worker
from tests.chaos.storage import Storage
from tests.chaos.training import Training

KINDS: dict[str, type[Fault]] = {
    kind.kind: kind
    for kind in (
        Driver, DriverOnRay, Terminate, TerminateOnRay, Writes, Worker, Actor, Node, Lost, Drain, Storage, Disk,
        Network, Training,
    )
}  # fmt: skip
