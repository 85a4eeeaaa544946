"""Losses against their formulas, and blind to pixels without a label."""

import numpy as np
import pytest
import torch

from segbatch.classes import IGNORE_INDEX
from segbatch.training.losses import build_loss

NAMES = ["ce", "dice", "focal", "ce+dice", "ce + focal", "ce+dice+focal"]


def batch(classes: int = 4, ignored: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 2, (3, classes, 6, 5)), dtype=torch.float64)
    label = rng.integers(0, classes, (3, 6, 5))
    label[rng.random(label.shape) < ignored] = IGNORE_INDEX
    return logits, torch.tensor(label)


def flat(logits: torch.Tensor, label: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Labelled pixels alone: (pixels, classes) and (pixels,)."""
    pixels, ids = logits.detach().numpy().transpose(0, 2, 3, 1).reshape(-1, logits.shape[1]), label.numpy().ravel()
    return pixels[ids != IGNORE_INDEX], ids[ids != IGNORE_INDEX]


def softmax(pixels: np.ndarray) -> np.ndarray:
    powers = np.exp(pixels - pixels.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def reference(name: str, logits: torch.Tensor, label: torch.Tensor, smoothing: float = 0.0) -> float:
    pixels, ids = flat(logits, label)
    one_hot = np.eye(pixels.shape[1])[ids]
    if name == "ce":
        target = one_hot * (1 - smoothing) + smoothing / pixels.shape[1]
        return float(-(target * np.log(softmax(pixels))).sum(axis=1).mean())
    if name == "dice":
        probabilities = softmax(pixels)
        both, either = (probabilities * one_hot).sum(axis=0), (probabilities + one_hot).sum(axis=0)
        return float(np.where(one_hot.any(axis=0), 1 - 2 * both / either, 0).mean())
    right = np.where(one_hot == 1, 1 / (1 + np.exp(-pixels)), 1 / (1 + np.exp(pixels)))
    return float((-((1 - right) ** 2) * np.log(right)).mean(axis=0).sum())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ignored", [0.0, 0.3, 0.9])
def test_losses_are_their_formulas(name: str, ignored: float) -> None:
    logits, label = batch(ignored=ignored)
    expected = sum(reference(term.strip(), logits, label) for term in name.split("+"))
    assert build_loss(name)(logits, label).item() == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_is_of_the_cross_entropy_over_labelled_pixels() -> None:
    logits, label = batch()
    expected = reference("ce", logits, label, 0.1) + reference("dice", logits, label)
    assert build_loss("ce+dice", 0.1)(logits, label).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_pixels_without_a_label_have_no_say(name: str, smoothing: float) -> None:
    logits, label = batch()
    hidden = (label == IGNORE_INDEX).unsqueeze(1).expand_as(logits)
    loss = build_loss(name, smoothing)
    logits.requires_grad_()
    value = loss(logits, label)
    value.backward()
    assert logits.grad is not None
    assert (logits.grad[hidden] == 0).all()
    assert (logits.grad[~hidden] != 0).any()
    other = torch.where(hidden, logits.detach() * -3 + 50, logits.detach())
    assert loss(other, label).item() == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_labels_is_worth_nothing(name: str) -> None:
    logits, label = batch(ignored=1.1)
    logits.requires_grad_()
    value = build_loss(name, 0.1)(logits, label)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_memory_format_does_not_matter(name: str) -> None:
    """The learner computes in channels-last."""
    logits, label = batch()
    last = logits.contiguous(memory_format=torch.channels_last)
    assert build_loss(name)(last, label).item() == pytest.approx(build_loss(name)(logits, label).item(), rel=1e-12)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="'hinge'"):
        build_loss("ce+hinge")
