"""The engine without Ray: the same stages in this process, for tests, debugging and small scenes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

from segbatch.inference.ledger import LedgerRow
from segbatch.inference.stages import BlockMask, BlockPixels
from segbatch.inference.stop import stage_threads
from segbatch.inference.watch import Begun, Tell, Watchdog, at_work, unheard
from segbatch.inference.work import Work


def run_inline(work: Work, device: str, tell: Tell = unheard) -> Iterator[LedgerRow]:
    """Map the pending blocks and yield the ledger row of each as it is done.

    One thread reads a block ahead and another writes the one before while the model computes.

    Args:
        work: What to do.
        device: Where the model runs.
        tell: Says a line where no block is done for a long time. It is not given up for that: nobody pays for other
            machines that wait, and what hangs in a thread could not be ended.
    """
    reader, writer = work.reader(), work.writer()
    pending = iter(work.pending.tolist())
    begun, names = Begun(), [scene.id for scene in work.scenes]

    def read(scene: int, block: int) -> BlockPixels:
        with begun.at("read", scene, block):
            return reader(scene, block)

    def write(mask: BlockMask) -> LedgerRow:
        with begun.at("write", mask.scene, mask.block):
            return writer(mask)

    with (
        Watchdog(tell, lambda: at_work(begun.under_way(), names)) as dog,
        stage_threads(2) as (reading, writing),
    ):
        ahead: deque[Future[BlockPixels]] = deque()
        behind: deque[Future[LedgerRow]] = deque()

        def submit() -> None:
            following = next(pending, None)
            if following is not None:
                ahead.append(reading.submit(read, *following))

        submit()
        predict = work.predictor(None, device)
        while ahead:
            pixels = ahead.popleft().result()
            submit()
            with begun.at("predict", pixels.scene, pixels.block):
                mask = predict(pixels)
            behind.append(writing.submit(write, mask))
            del pixels, mask  # they may be large, and the next are coming
            while len(behind) > 1:
                row = behind.popleft().result()
                dog.done()
                yield row
        for future in behind:
            row = future.result()
            dog.done()
            yield row
