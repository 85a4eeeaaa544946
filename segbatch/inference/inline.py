"""The engine without Ray: the same stages in this process, for tests, debugging and small scenes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from segbatch.inference.ledger import LedgerRow
from segbatch.inference.stages import BlockPixels
from segbatch.inference.work import Work


def run_inline(work: Work, device: str) -> Iterator[LedgerRow]:
    """Map the pending blocks and yield the ledger row of each as it is done.

    One thread reads a block ahead and another writes the one before while the model computes.
    """
    read, write = work.reader(), work.writer()
    pending = iter(work.pending.tolist())
    with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
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
            behind.append(writing.submit(write, predict(pixels)))
            while len(behind) > 1:
                yield behind.popleft().result()
        for future in behind:
            yield future.result()
