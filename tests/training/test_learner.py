"""Optimizer steps: they learn, they can be interrupted, and they say so when they fail."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from segbatch.config import Training
from segbatch.geometry import Window
from segbatch.models.backends.hardware import has_bf16
from segbatch.models.build import build_model
from segbatch.training.feed import Batch
from segbatch.training.learner import Learner, schedule
from segbatch.training.survey import Survey
from segbatch.training.tiles import TilePlace

CPU = torch.device("cpu")
MEAN, STD = (100.0, 50.0, 20.0), (30.0, 20.0, 10.0)
LOW, HIGH = (60.0, 10.0, 5.0), (150.0, 90.0, 45.0)
SURVEY = Survey(16, (), MEAN, STD, tuple(zip(LOW, MEAN, HIGH, strict=True)))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_batch(seed: int = 0, size: int = 2, side: int = 32) -> Batch:
    """Two classes told apart by the first band."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, (size, side, side))
    values = np.stack([60 + 80 * label, 50 + 0 * label, 20 + 0 * label], axis=1) + rng.integers(
        -9, 9, (size, 3, side, side)
    )
    return Batch(
        values=torch.from_numpy(values.astype(np.uint8)),
        valid=torch.ones(size, 1, side, side, dtype=torch.bool),
        label=torch.from_numpy(label),
        gamma=torch.ones(size, 3, 1, 1),
        gain=torch.ones(size, 3, 1, 1),
        offset=torch.zeros(size, 3, 1, 1),
        noise=(0.0,) * size,
        numbers=tuple(range(size * seed, size * (seed + 1))),
        places=tuple(TilePlace(0, Window(side * index, 0, side, side)) for index in range(size)),
    )


def learn(learner: Learner, batch: Batch) -> torch.Tensor:
    """Take a step."""
    loss = learner.backward(batch)
    learner.apply()
    return loss


def make_learner(
    total: int = 20, *, model: torch.nn.Module | None = None, worker: tuple[int, int] = (0, 1), **settings: Any
) -> Learner:
    if model is None:
        torch.manual_seed(0)
        options = {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}
        model = build_model("unet", "resnet18", in_channels=3, num_classes=2, options=options)
    training = Training(**{"precision": "float32", "batch_size": 2, **settings})
    return Learner(model, model, training, total, (1.0, 1.0), SURVEY, CPU, worker)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    """All that a learner's further course depends on, as seen from outside."""
    return {
        **{f"bare.{name}": value.clone() for name, value in learner._bare.state_dict().items()},
        **{f"kept.{name}": value.clone() for name, value in learner.kept.state_dict().items()},
    }


@pytest.mark.parametrize("total", [1, 2, 10, 100, 1000])
def test_the_schedule_warms_up_and_follows_a_cosine_down(total: int) -> None:
    rates = [schedule(step, total) for step in range(total)]
    warm_up = max(1, round(total / 20))
    assert rates[:warm_up] == pytest.approx([(step + 1) / warm_up for step in range(warm_up)])
    assert max(rates) <= 1
    falling = rates[warm_up:]
    assert all(later < earlier for earlier, later in pairwise(falling))
    assert all(rate >= 0.01 for rate in falling)
    if total > 1:
        assert schedule(total, total) == schedule(2 * total, total) == pytest.approx(0.01)  # never turns up again
    middle = warm_up + (total - warm_up) / 2
    if total >= 100 and middle == int(middle):
        assert schedule(int(middle), total) == pytest.approx(0.01 + 0.99 / 2)


def test_steps_follow_the_schedule() -> None:
    learner = make_learner(total=40, learning_rate=0.01)
    for step in range(4):
        assert learner.step == step
        assert learner.learning_rate == pytest.approx(0.01 * schedule(step, 40))
        learn(learner, make_batch())
        assert {group["lr"] for group in learner._optimizer.param_groups} == {0.01 * schedule(step, 40)}


@pytest.mark.parametrize("loss", ["ce", "dice", "focal", "lovasz", "tversky", "ce+dice"])
def test_steps_lower_the_loss_of_a_batch(loss: str) -> None:
    learner = make_learner(total=15, loss=loss, learning_rate=3e-3)
    losses = [learn(learner, make_batch()).item() for _ in range(15)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_loss_is_that_of_normalised_pixels() -> None:
    """A 1 x 1 convolution with known weights on pixels of known mean, gain and offset."""
    model = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1))
        model.bias.zero_()
    batch = make_batch()
    changed = replace(
        batch,
        values=batch.values.float(),
        valid=batch.valid.clone(),
        gamma=torch.tensor([0.8, 1.0, 1.25]).view(1, 3, 1, 1).expand(2, 3, 1, 1),
        gain=torch.tensor([1.2, 0.9, 1.0]).view(1, 3, 1, 1).expand(2, 3, 1, 1),
        offset=torch.tensor([0.1, -0.2, 0.0]).view(1, 3, 1, 1).expand(2, 3, 1, 1),
    )
    changed.valid[:, :, :5] = False
    changed.values[:, :, :5] = math.nan
    mean, std, low, high = (torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD, LOW, HIGH))
    share = (batch.values.float() - low) / (high - low)
    assert (share < 0).any()
    bent = low + (high - low) * torch.where(
        share < 0, -((-share) ** changed.gamma), share.clamp_min(0) ** changed.gamma
    )
    pixels = (bent - mean) / std * changed.gain + changed.offset
    pixels[:, :, :5] = 0
    expected = torch.nn.functional.cross_entropy(pixels[:, :2], batch.label)
    learner = make_learner(model=model, loss="ce", ema=0)
    assert learn(learner, changed).item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_weights_decay() -> None:
    learner = make_learner(weight_decay=0.3)
    groups = learner._optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    for group in groups:
        assert {parameter.ndim for parameter in group["params"]} == {4 if group["weight_decay"] else 1}
    assert sum(len(group["params"]) for group in groups) == len(list(learner._bare.parameters()))


@pytest.mark.parametrize("ema", [0.0, 0.99])
@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0"])
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(tmp_path: Path, ema: float, encoder: str) -> None:
    """To the bit; mit_b0 draws random numbers in its steps."""
    options = {} if encoder == "mit_b0" else {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}

    def fresh(seed: int) -> Learner:
        torch.manual_seed(seed)
        model = build_model("unet", encoder, in_channels=3, num_classes=2, options=options)
        return make_learner(total=10, model=model, ema=ema)

    batches = [make_batch(seed) for seed in range(6)]
    whole = fresh(0)
    losses = [learn(whole, batch).item() for batch in batches]

    first = fresh(0)
    assert [learn(first, batch).item() for batch in batches[:3]] == losses[:3]
    first.save(tmp_path / "state.pt")
    torch.manual_seed(99)
    second = fresh(7)  # starts from other weights
    second.load(tmp_path / "state.pt")
    assert second.step == 3
    assert [learn(second, batch).item() for batch in batches[3:]] == losses[3:]
    ended = weights(second)
    for name, value in weights(whole).items():
        assert torch.equal(value, ended[name]), name


def test_the_state_file_needs_no_pickled_code(tmp_path: Path) -> None:
    learner = make_learner()
    learn(learner, make_batch())
    learner.save(tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 1
    assert set(state["model"]) == set(learner._bare.state_dict())


def test_a_loss_that_is_no_number_is_told_before_it_changes_anything() -> None:
    learner = make_learner()
    learn(learner, make_batch())
    before = weights(learner)
    broken = make_batch()
    broken.offset.fill_(math.inf)
    assert learner.backward(broken).isnan()
    assert learner.culprits(broken) == [0, 1]
    assert learner.step == 1
    parameters = dict(learner._bare.named_parameters())
    for name, parameter in parameters.items():
        assert torch.equal(before[f"bare.{name}"], parameter), name


def test_a_batch_without_labels_harms_nothing() -> None:
    learner = make_learner(loss="ce+dice+focal")
    batch = make_batch()
    batch.label.fill_(255)
    assert learn(learner, batch).item() == 0
    assert all(torch.isfinite(value).all() for value in weights(learner).values())


def test_the_average_is_the_moving_one_of_the_weights_and_buffers() -> None:
    learner = make_learner(ema=0.3)
    name = "segmentation_head.0.bias"
    running = "encoder.bn1.running_mean"
    count = "encoder.bn1.num_batches_tracked"
    expected: dict[str, torch.Tensor] = {}
    for step in range(4):
        learn(learner, make_batch(step))
        current = learner._bare.state_dict()
        # The first weights are taken as they are; then the decay grows to 0.3: 2/11, 3/12, 0.3, ...
        decay = 0.0 if step == 0 else min(0.3, (1 + step) / (10 + step))
        for key in (name, running):
            expected[key] = current[key].clone() if step == 0 else decay * expected[key] + (1 - decay) * current[key]
            assert torch.allclose(learner.kept.state_dict()[key], expected[key], atol=1e-7), (step, key)
        assert learner.kept.state_dict()[count] == current[count]
    assert not torch.equal(expected[name], learner._bare.state_dict()[name])


def test_without_averaging_the_network_itself_is_kept() -> None:
    learner = make_learner(ema=0)
    assert learner.kept is learner._bare


def test_a_snapshot_does_not_move_on() -> None:
    learner = make_learner()
    learn(learner, make_batch())
    taken = learner.snapshot()
    assert not taken.training
    before = {name: value.clone() for name, value in taken.state_dict().items()}
    assert all(torch.equal(value, learner.kept.state_dict()[name]) for name, value in before.items())
    learn(learner, make_batch(1))
    assert all(torch.equal(value, before[name]) for name, value in taken.state_dict().items())
    assert learner._bare.training


def test_bf16_is_used_where_it_is_asked_for() -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        losses[precision] = learn(make_learner(precision=precision), make_batch()).item()
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["bf16"] != losses["float32"]
    automatic = learn(make_learner(precision="auto"), make_batch()).item()
    assert automatic == losses["bf16" if has_bf16(CPU) else "float32"]


def test_the_encoder_has_a_learning_rate_of_its_own() -> None:
    learner = make_learner(learning_rate=0.01, encoder_lr=0.1)
    learn(learner, make_batch())
    encoder = {id(parameter) for parameter in learner._bare.encoder.parameters()}
    for group in learner._optimizer.param_groups:
        inside = {id(parameter) in encoder for parameter in group["params"]}
        assert inside in ({True}, {False})
        assert group["lr"] == pytest.approx(0.01 * schedule(0, 20) * (0.1 if inside == {True} else 1))
        assert group["weight_decay"] == (0.01 if group["params"][0].ndim > 1 else 0)
    counted = sum(len(group["params"]) for group in learner._optimizer.param_groups)
    assert counted == len(list(learner._bare.parameters()))


def test_a_frozen_encoder_stays_as_it_is_and_then_learns() -> None:
    learner = make_learner(total=8, epochs=4, freeze_encoder=2)
    before = {name: value.clone() for name, value in learner._bare.state_dict().items()}
    for step in range(6):
        learn(learner, make_batch(step))
        now = learner._bare.state_dict()
        same = {name: torch.equal(value, before[name]) for name, value in now.items()}
        assert not all(same[name] for name in now if not name.startswith("encoder."))
        if step < 4:
            # Its normalisation layers' running statistics among it.
            assert all(same[name] for name in now if name.startswith("encoder."))
    assert not same["encoder.conv1.weight"]
    assert not same["encoder.bn1.running_mean"]


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_step_in_parts_is_a_step(parts: int) -> None:
    """Without batch normalisation, whose statistics are each part's own."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
    losses, learned = [], []
    for accumulate in (1, parts):
        torch.manual_seed(0)
        for layer in (model[0], model[2]):
            layer.reset_parameters()
        learner = make_learner(model=model, accumulate=accumulate, batch_size=4, loss="ce", ema=0)
        losses.append(learn(learner, make_batch(size=4)).item())
        learned.append([parameter.detach().clone() for parameter in model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for whole, in_parts in zip(*learned, strict=True):
        torch.testing.assert_close(whole, in_parts, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("size", "parts"), [(4, 1), (4, 4), (6, 3), (6, 4)])
def test_workers_add_up_their_gradients_once_a_step(monkeypatch: pytest.MonkeyPatch, size: int, parts: int) -> None:
    """With the last part: the others are their own affair."""
    told: list[str] = []

    class Quiet:
        def __enter__(self) -> None:
            told.append("quiet")

        def __exit__(self, *_: object) -> None:
            told.append("aloud")

    model = torch.nn.Conv2d(3, 2, 1)
    monkeypatch.setattr(model, "no_sync", Quiet, raising=False)
    learner = make_learner(model=model, accumulate=parts, batch_size=2 * size, workers=2, ema=0, worker=(0, 2))
    model.register_forward_hook(lambda *_: told.append("forward"))
    learn(learner, make_batch(size=size))
    # Six tiles in four parts are two a part: three do.
    parts = math.ceil(size / math.ceil(size / parts))
    assert told == ["quiet", "forward", "aloud"] * (parts - 1) + ["forward"]


def test_only_the_tiles_that_make_the_loss_no_number_are_accused() -> None:
    learner = make_learner(batch_size=3)
    batch = make_batch(size=3)
    batch.gain[1] = math.inf
    assert not learner.backward(batch).isfinite()
    assert learner.culprits(batch) == [1]


def test_workers_with_unequal_shares_have_the_gradient_of_the_whole_step() -> None:
    """The mean of their gradients, as DistributedDataParallel takes it."""
    model = torch.nn.Conv2d(3, 2, 1)
    whole = make_batch(size=5)

    def gradient(batch: Batch, worker: tuple[int, int]) -> tuple[torch.Tensor, float]:
        learner = make_learner(model=model, batch_size=5, loss="ce", ema=0, worker=worker)
        loss = learner.backward(batch).item()
        return model.weight.grad.clone(), loss

    expected, loss = gradient(whole, (0, 1))
    shares = []
    for rank, part in enumerate((slice(0, 2), slice(2, 5))):
        tensors = {name: getattr(whole, name)[part] for name in ("values", "valid", "label", "gamma", "gain", "offset")}
        listed = {name: getattr(whole, name)[part] for name in ("noise", "numbers", "places")}
        shares.append(gradient(replace(whole, **tensors, **listed), (rank, 2)))
    torch.testing.assert_close((shares[0][0] + shares[1][0]) / 2, expected)
    assert (shares[0][1] + shares[1][1]) / 2 == pytest.approx(loss, rel=1e-5)


def test_noise_is_a_tiles_own_and_as_strong_as_it_says() -> None:
    learner = make_learner()
    batch = make_batch(side=128)
    clean = learner.pixels(batch)
    noisy = learner.pixels(replace(batch, noise=(0.0, 0.5)))
    assert torch.equal(noisy[0], clean[0])
    assert (noisy[1] - clean[1]).std().item() == pytest.approx(0.5, rel=0.02)
    assert (noisy[1] - clean[1]).mean().item() == pytest.approx(0, abs=0.01)
    # The same in whatever batch the tile is, and another one for another tile.
    swapped = replace(batch, values=batch.values.flip(0), noise=(0.5, 0.5), numbers=batch.numbers[::-1])
    assert torch.equal(learner.pixels(swapped)[0], noisy[1])
    assert not torch.equal(learner.pixels(swapped)[1] - clean[0], noisy[1] - clean[1])


@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 6), st.data())
def test_fewer_workers_take_more_parts_but_no_larger_ones(
    batch_size: int, workers: int, accumulate: int, data: st.DataObject
) -> None:
    assume(batch_size // workers >= accumulate)
    world = data.draw(st.integers(1, workers))
    learner = object.__new__(Learner)
    learner._settings = Training(batch_size=batch_size, workers=workers, accumulate=accumulate)
    learner._world = workers
    largest = math.ceil(math.ceil(batch_size / workers) / learner._parts)
    learner._world = world
    for rank in range(world):
        tiles = batch_size * (rank + 1) // world - batch_size * rank // world
        parts = [len(part) for part in torch.zeros(tiles).tensor_split(learner._parts)][::-1]
        assert max(parts) <= largest
        assert parts[-1] > 0  # with which gradients are added up
    learner._world = workers
    if batch_size % workers == 0 and (batch_size // workers) % accumulate == 0:
        assert learner._parts == accumulate
