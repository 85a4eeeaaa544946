"""The engine without Ray: the same stages in this process, for tests, debugging and small scenes."""

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future

from segbatch.inference.attempts import BEGIN, MAP, Attempts, given_up, suspects
from segbatch.inference.ledger import LedgerRow
from segbatch.inference.stages import BlockMask, BlockPixels, PredictStage
from segbatch.inference.stop import stage_threads
from segbatch.inference.watch import Begun, Tell, Watchdog, at_work, unheard
from segbatch.inference.work import Work

_Place = tuple[int, int]
"""Index of a scene in the plan, and number of a block in its grid."""


def run_inline(work: Work, device: str, tell: Tell = unheard) -> Generator[LedgerRow, None, None]:
    """Map the pending blocks and yield the ledger row of each as it is done.

    One thread reads a block ahead and another writes the one before while the model computes. Blocks that were under
    way when an earlier process was lost come last and each by itself, so that it shows which of them is to blame: one
    that ends process after process is given up, and its row has an error.

    Args:
        work: What to do.
        device: Where the model runs.
        tell: Says a line where no block is done for a long time. It is not given up for that: nobody pays for other
            machines that wait, and what hangs in a thread could not be ended.
    """
    suspected, begun = suspects(work.attempts), Begun()
    work.attempts.mkdir(parents=True, exist_ok=True)
    with (
        Watchdog(tell, lambda: at_work(begun.under_way())) as dog,
        # Outside of the threads, one of which may hang: what a command that was stopped was at is not to blame.
        Attempts(work.attempts, MAP) as attempts,
        stage_threads(2) as threads,
    ):
        stages = _Stages(work, device, attempts, begun, threads)
        if suspected:
            stages.load()  # a process that is lost by then has no block to blame
        for row in _in_turn(work, stages, suspected):
            dog.done()
            yield row


class _Stages:
    """What a block goes through. Each stage may be at another block.

    Args:
        work: What to do.
        device: Where the model runs.
        attempts: Knows a block from when it is read until its row is in the ledger.
        begun: Knows what each stage is at.
        threads: One reads and one writes.
    """

    def __init__(self, work: Work, device: str, attempts: Attempts, begun: Begun, threads: Sequence[Executor]) -> None:
        self._work, self._device = work, device
        self._attempts, self._begun = attempts, begun
        self._reading, self._writing = threads
        self._reader, self._writer = work.reader(), work.writer()
        self._names = [scene.id for scene in work.scenes]
        self._predictor: PredictStage | None = None

    def run(self, blocks: Sequence[_Place], is_hopeless: bool = False) -> Iterator[LedgerRow]:
        """Map blocks, several at a time; at the end none is under way.

        Args:
            blocks: In this order.
            is_hopeless: Give them up, since processes were lost before one of their scene was done.
        """
        pending = iter(blocks)
        ahead: deque[Future[BlockPixels]] = deque()
        behind: deque[Future[LedgerRow]] = deque()

        def submit() -> None:
            following = next(pending, None)
            if following is not None:
                ahead.append(self._reading.submit(self._read, *following, is_hopeless))

        submit()
        while ahead:
            predict = self.load()
            pixels = ahead.popleft().result()
            submit()
            with self._begun.at("predict", self._names[pixels.scene], pixels.block):
                mask = predict(pixels)
            behind.append(self._writing.submit(self._write, mask))
            del pixels, mask  # they may be large, and the next are coming
            while len(behind) > 1:
                yield behind.popleft().result()
        for future in behind:
            yield future.result()

    def load(self) -> PredictStage:
        """The model, which takes seconds at the first call."""
        if self._predictor is None:
            self._predictor = self._work.predictor(None, self._device)
        return self._predictor

    def _read(self, scene: int, block: int, is_hopeless: bool) -> BlockPixels:
        name = self._names[scene]
        problem = given_up(block, "begin its scene") if is_hopeless else self._attempts.begin(name, block)
        if problem is not None:
            self._attempts.keep(name, block)
            return self._work.unread(scene, block, problem)
        with self._begun.at("read", name, block):
            return self._reader(scene, block)

    def _write(self, mask: BlockMask) -> LedgerRow:
        name = self._names[mask.scene]
        with self._begun.at("write", name, mask.block):
            row = self._writer(mask)
        self._attempts.end(name, mask.block)
        return row


def _in_turn(work: Work, stages: _Stages, suspected: Mapping[str, Sequence[int]]) -> Iterator[LedgerRow]:
    """Scenes at which no process was lost, then each of the others by itself.

    Args:
        work: What to do.
        stages: Do it.
        suspected: By the id of a scene, blocks that were under way when a process was lost, in the order in which to
            try them.
    """
    indices = {scene.id: index for index, scene in enumerate(work.scenes)}
    pending = [(scene, block) for scene, block in work.pending.tolist()]
    # A scene that is another call's keeps its count.
    here = {scene for scene, _ in pending}
    late = {indices[name]: marked for name, marked in suspected.items() if indices.get(name) in here}
    yield from stages.run([place for place in pending if place[0] not in late])
    for scene, marked in late.items():
        left = dict.fromkeys(place for place in pending if place[0] == scene)
        alone = [(scene, block) for block in marked if (scene, block) in left]
        parts = [[place for place in left if place not in alone], *([place] for place in alone)]
        # A file all of whose blocks end processes would cost several a block: where one process after the other was
        # lost before any block was done, the whole scene is given up.
        with Attempts(work.attempts, BEGIN) as beginnings:
            name = work.scenes[scene].id
            is_hopeless = beginnings.begin(name, 0) is not None
            if is_hopeless:
                beginnings.keep(name, 0)
            for part in parts:
                for row in stages.run(part, is_hopeless):
                    if row.error is None:
                        beginnings.end(name, 0)
                    yield row
