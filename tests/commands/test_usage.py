"""The account of what a run takes: over calls, while machines come and go, and when it is killed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segbatch.commands import usage
from segbatch.commands.folder import RunFolder
from segbatch.commands.usage import Held, Usage, held_on_ray, metered, read_usage


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(usage, "time", found)
    return found


def test_calls_add_up(tmp_path: Path, clock: Clock) -> None:
    folder = RunFolder(tmp_path)
    machine = Held(1, 2)
    with metered(folder, "training", lambda: machine, since=clock.now - 3600):
        clock.now += 3600
    for _ in range(2):
        with metered(folder, "mapping", lambda: Held(2, 8, {"T4": 2, "H100": 1})):
            clock.now += 1800
    found = read_usage(folder)
    assert found["training"] == Usage(1, 2.0, 2.0, 4.0, {})
    assert found["mapping"] == Usage(2, 1.0, 2.0, 8.0, {"T4": 2.0, "H100": 1.0})
    assert sum(found.values(), Usage()) == Usage(3, 3.0, 4.0, 12.0, {"T4": 2.0, "H100": 1.0})


def test_machines_come_and_go(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "_SECONDS_BETWEEN_LOOKS", 0.01)
    there = [Held(1, 4), Held(3, 20, {"T4": 2})]
    looks: list[Held] = []

    def look() -> Held:
        looks.append(there[min(len(looks), 1)])
        return looks[-1]

    with metered(RunFolder(tmp_path), "mapping", look):
        while len(looks) < 3:
            time.sleep(0.01)
        clock.now += 3600
    found = read_usage(RunFolder(tmp_path))["mapping"]
    assert found == Usage(1, 1.0, 3.0, 20.0, {"T4": 2.0})


def test_a_cluster_that_does_not_answer_ends_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_SECONDS_BETWEEN_LOOKS", 0.01)
    looks: list[int] = []

    def look() -> Held:
        looks.append(1)
        if len(looks) > 1:
            raise ConnectionError("the head has gone")
        return Held(1, 2)

    with metered(RunFolder(tmp_path), "mapping", look):
        while len(looks) < 3:
            time.sleep(0.01)
        clock.now += 3600
    assert read_usage(RunFolder(tmp_path))["mapping"].cpu_hours == 2.0


def test_a_call_that_fails_has_cost_its_share(tmp_path: Path, clock: Clock) -> None:
    def stopped() -> None:
        with metered(RunFolder(tmp_path), "mapping", lambda: Held(1, 2)):
            clock.now += 3600
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert read_usage(RunFolder(tmp_path))["mapping"].cpu_hours == 2.0


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_call_that_is_killed_has_cost_its_share(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom segbatch.commands import usage\n"
        "from segbatch.commands.folder import RunFolder\n"
        "usage._SECONDS_BETWEEN_LOOKS = 0.05\n"
        "with usage.metered(RunFolder(Path(sys.argv[1])), 'mapping', lambda: usage.Held(1, 2)):\n"
        "    print('working', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    before = read_usage(RunFolder(tmp_path))["mapping"].hours
    deadline = time.monotonic() + 30
    while read_usage(RunFolder(tmp_path))["mapping"].hours == before and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = read_usage(RunFolder(tmp_path))["mapping"]
    assert killed.hours > before
    with metered(RunFolder(tmp_path), "mapping", lambda: Held(1, 2)):
        pass
    both = read_usage(RunFolder(tmp_path))["mapping"]
    assert both.calls == 2
    assert both.hours >= killed.hours


def test_what_is_thrown_away_is_no_longer_told(tmp_path: Path, clock: Clock) -> None:
    folder = RunFolder(tmp_path)
    for step in ("training", "mapping"):
        with metered(folder, step, lambda: Held(1, 2)):  # type: ignore[arg-type]
            clock.now += 1
    folder.clear_mapping()
    assert set(read_usage(folder)) == {"training"}
    folder.clear_training()
    assert not folder.usage.exists()
    folder.clear_mapping()
    assert not folder.usage.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"calls": 3}', '{"calls": [{"step": "mapping"}]}'])
def test_an_account_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "usage.json").write_text(content)
    assert read_usage(RunFolder(tmp_path)) == {}


def test_the_account_is_plain(tmp_path: Path, clock: Clock) -> None:
    with metered(RunFolder(tmp_path), "mapping", lambda: Held(1, 2, {"T4": 1})):
        clock.now += 1800
    (call,) = json.loads((tmp_path / "usage.json").read_text())["calls"]
    assert call == {
        "step": "mapping",
        "started": 1000.0,
        "calls": 1,
        "hours": 0.5,
        "node_hours": 0.5,
        "cpu_hours": 1.0,
        "gpu_hours": {"T4": 0.5},
    }


def test_what_a_cluster_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[dict[str, float]] = [
        {"memory": 1.0},
        {"CPU": 8.0, "GPU": 1.0, "accelerator_type:T4": 1.0},
        {"CPU": 8.0, "GPU": 2.0, "accelerator_type:T4": 1.0},
        {"CPU": 16.0, "GPU": 4.0},
    ]
    look: Callable[[], list[dict[str, float]]] = lambda: nodes  # noqa: E731
    monkeypatch.setattr(usage, "node_resources", look)
    assert held_on_ray() == Held(4, 32.0, {"T4": 3.0, "GPU": 4.0})
