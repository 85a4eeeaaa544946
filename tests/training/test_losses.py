"""Losses against their formulas, and blind to pixels without a label."""

import numpy as np
import pytest
import torch

from segbatch.classes import IGNORE_INDEX
from segbatch.training.losses import build_loss, weigh_classes

NAMES = ["ce", "dice", "focal", "lovasz", "tversky", "ce+dice", "ce + lovasz", "ce+dice+focal"]


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
    if name == "tversky":
        probabilities = softmax(pixels)
        hit = (probabilities * one_hot).sum(axis=0)
        false = (probabilities * (1 - one_hot)).sum(axis=0)
        missed = ((1 - probabilities) * one_hot).sum(axis=0)
        return float(np.where(one_hot.any(axis=0), 1 - hit / (hit + 0.3 * false + 0.7 * missed), 0).mean())
    if name == "lovasz":
        present = [c for c in range(pixels.shape[1]) if one_hot[:, c].any()]
        return float(np.mean([lovasz(np.abs(one_hot[:, c] - softmax(pixels)[:, c]), one_hot[:, c]) for c in present]))
    right = np.where(one_hot == 1, 1 / (1 + np.exp(-pixels)), 1 / (1 + np.exp(pixels)))
    return float((-((1 - right) ** 2) * np.log(right)).mean(axis=0).sum())


def lovasz(errors: np.ndarray, truth: np.ndarray) -> float:
    """By the definition of the Lovasz extension: the Jaccard losses of growing sets of pixels, the worst ones first."""
    order = np.argsort(-errors)
    jaccard = [0.0]
    for count in range(1, len(order) + 1):
        wrong = np.zeros(len(truth), bool)
        wrong[order[:count]] = True
        jaccard.append(1 - ((truth == 1) & ~wrong).sum() / ((truth == 1) | wrong).sum())
    return float(np.dot(errors[order], np.diff(jaccard)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ignored", [0.0, 0.3, 0.9])
def test_losses_are_their_formulas(name: str, ignored: float) -> None:
    logits, label = batch(ignored=ignored)
    expected = sum(reference(term.strip(), logits, label) for term in name.split("+"))
    assert build_loss(name)(logits, label).item() == pytest.approx(expected, rel=1e-5)


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


def test_class_weights_are_of_the_cross_entropy() -> None:
    logits, label = batch()
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0])
    pixels, ids = flat(logits, label)
    each = weights.numpy()[ids]
    expected = float((each * -np.log(softmax(pixels)[np.arange(len(ids)), ids])).sum() / each.sum())
    found = build_loss("ce", class_weights=weights)(logits, label).item()
    assert found == pytest.approx(expected, rel=1e-6)
    with_dice = build_loss("ce+dice", class_weights=weights)(logits, label).item()
    assert with_dice == pytest.approx(expected + reference("dice", logits, label), rel=1e-6)


def test_classes_are_weighed_by_their_frequency() -> None:
    pixels, shared = np.array([800, 150, 50, 0]), np.array([1000, 500, 100, 0])
    assert weigh_classes("none", pixels, shared) == pytest.approx([1, 1, 1, 0])
    inverse = np.array(weigh_classes("inverse", pixels, shared))
    assert (inverse[:3] * pixels[:3]).tolist() == pytest.approx([1000 / 3] * 3)
    # Frequencies 0.8, 0.3 and 0.5 where the classes occur; their median is 0.5.
    median = np.array(weigh_classes("median", pixels, shared))
    assert (median[:3] / median[2]).tolist() == pytest.approx([0.5 / 0.8, 0.5 / 0.3, 1])
    for weights in (inverse, median):
        assert weights[3] == 0
        assert (weights * pixels).sum() == pytest.approx(1000)
