"""What the workers of a training do together."""

import pytest
import torch

from segbatch.training.loop import _share_buffers


def test_all_workers_validate_with_the_first_ones_batch_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a second worker: what is broadcast from rank 0 takes the place of its own."""
    own, first = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    own.train()(torch.rand(2, 3, 4, 4))
    first.train()(torch.rand(2, 3, 4, 4) + 5)
    sent = iter(first.buffers())

    def broadcast(tensor: torch.Tensor, src: int) -> None:
        assert src == 0
        tensor.copy_(next(sent))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    assert not torch.equal(own.running_mean, first.running_mean)
    _share_buffers(own)
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, own.state_dict()[name])


def test_a_single_worker_shares_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *args, **named: pytest.fail("nobody is there"))
    model = torch.nn.BatchNorm2d(3)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    _share_buffers(model)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
