"""The space of a search: what is drawn from it, and what is refused before work starts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.config import RunConfig, draw, parse_config, read_setting, with_settings
from segbatch.errors import InputError


def make(space: dict[str, Any] | None = None, training: dict[str, Any] | None = None, **tune: Any) -> RunConfig:
    data: dict[str, Any] = {
        "name": "test",
        "output": "runs/test",
        "classes": [{"name": "dark"}, {"name": "bright"}],
        "label_values": {1: "dark", 2: "bright"},
        "scenes": {"validate": [{"image": "a.tif", "label": "b.tif", "window": {"row_off": 5}}]},
        "training": training or {},
        "tune": tune | ({} if space is None else {"space": space}),
    }
    return parse_config(data, "run.yaml")


@given(seed=st.integers(0, 1000), trials=st.integers(1, 40))
def test_settings_are_different_inside_the_space_and_the_same_for_more_trials(seed: int, trials: int) -> None:
    space = {
        "training.learning_rate": {"log_uniform": [1e-4, 1e-2]},
        "training.ema": {"uniform": [0, 0.9]},
        "training.loss": ["ce", "ce+dice"],
    }
    points = draw(make(space, seed=seed, trials=trials))
    assert len(points) == trials == len({str(point) for point in points})
    for point in points:
        assert list(point) == list(space)
        assert 1e-4 <= point["training.learning_rate"] <= 1e-2
        assert 0 <= point["training.ema"] <= 0.9
        assert point["training.loss"] in ("ce", "ce+dice")
        assert point["training.ema"] == float(f"{point['training.ema']:.3g}")
    assert draw(make(space, seed=seed, trials=trials + 7))[:trials] == points


def test_another_seed_draws_others() -> None:
    space = {"training.learning_rate": {"log_uniform": [1e-4, 1e-2]}}
    assert draw(make(space, seed=1)) != draw(make(space, seed=2))


def test_magnitudes_are_drawn_alike_often() -> None:
    points = draw(make({"training.learning_rate": {"log_uniform": [1e-5, 1e-1]}}, trials=64))
    for low in (1e-5, 1e-4, 1e-3, 1e-2):
        assert 14 <= sum(low <= point["training.learning_rate"] < 10 * low for point in points) <= 18


def test_a_space_of_lists_is_gone_through_once() -> None:
    space = {"training.tile": [256, 384, 512], "model.encoder": ["resnet18", "resnet34"], "model.weights": [None]}
    points = draw(make(space, trials=1000))
    assert len(points) == 6
    assert len({str(point) for point in points}) == 6


def test_the_configuration_itself_is_the_first_where_it_lies_in_the_space() -> None:
    space = {"training.learning_rate": {"log_uniform": [1e-4, 1e-2]}, "training.tile": [256, 384]}
    inside = draw(make(space, {"learning_rate": 0.0077, "tile": 384}))
    assert inside[0] == {"training.learning_rate": 0.0077, "training.tile": 384}
    outside = draw(make(space, {"learning_rate": 0.0077, "tile": 512}))
    assert outside[0]["training.tile"] in (256, 384)
    assert inside[1:6] == outside[:5]


def test_without_a_section_learning_rate_loss_and_tile_are_searched() -> None:
    points = draw(make())
    assert len(points) == 16
    assert list(points[0]) == ["training.learning_rate", "training.loss", "training.tile"]


def test_words_of_yaml_become_what_the_configuration_makes_of_them() -> None:
    # PyYAML reads 1e-3 as a word.
    points = draw(make({"training.learning_rate": ["1e-3", "3e-3"]}))
    assert sorted(point["training.learning_rate"] for point in points) == [0.001, 0.003]


def test_options_of_the_network_can_be_searched() -> None:
    config = make({"model.options.decoder_channels": [[16, 8], [32, 16]]})
    points = draw(config)
    assert [point["model.options.decoder_channels"] for point in points] in ([[16, 8], [32, 16]], [[32, 16], [16, 8]])
    assert with_settings(config, points[0]).model.options == {
        "decoder_channels": points[0]["model.options.decoder_channels"]
    }


def test_other_settings_leave_the_rest_as_it_is() -> None:
    config = make()
    changed = with_settings(config, {"training.tile": 64, "model.encoder": "resnet18"})
    assert (changed.training.tile, changed.model.encoder) == (64, "resnet18")
    same = with_settings(changed, {"training.tile": config.training.tile, "model.encoder": config.model.encoder})
    assert same == config
    assert read_setting(changed, "training.tile") == 64
    assert read_setting(changed, "model.options.decoder_channels") is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"training.tille": [256]}, "training.tille: .* did you mean 'training.tile'"),
        ({"tile": [256]}, "tile: .* did you mean 'training.tile'"),
        ({"scenes.nodata": [0]}, "only keys of model and training"),
        ({"model.options.a.b": [0]}, "only keys of model and training"),
        ({"training.epochs": [3]}, "training.epochs: is nothing to search"),
        ({"training.workers": [1, 2]}, "training.workers: is nothing to search"),
        ({"training.tile": [256, 250]}, "training.tile: must be a multiple of 32; the nearest are 224 and 256"),
        ({"training.loss": ["ce", "cee"]}, "unknown loss 'cee'"),
        ({"training.batch_size": {"uniform": [4, 16]}}, "training.batch_size: .*give a list"),
        ({"model.encoder": {"uniform": [1, 2]}}, "model.encoder: should be a valid string"),
        ({"training.learning_rate": {"uniform": [0, 1]}}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(make(space))


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        draw(make({"training.tile": [250], "training.lose": ["ce"]}))
    assert len(str(caught.value).splitlines()) == 2


def test_what_does_not_go_together_is_refused() -> None:
    space = {"model.weights": [None, "imagenet"], "model.init": [None, "bundle"]}
    with pytest.raises(InputError, match="cannot both be given"):
        draw(make(space))


@pytest.mark.parametrize(
    ("among", "message"),
    [
        (3, "expected a list of values, or a range"),
        ([], "at least 1 item"),
        ({"log_unifrom": [0.1, 1]}, "no range 'log_unifrom'; did you mean 'log_uniform'"),
        ({"uniform": [2, 1]}, "the first must be the smaller one"),
        ({"log_uniform": [0, 1]}, "positive numbers"),
        ({"log_uniform": [1, 2], "uniform": [1, 2]}, "either 'uniform' or 'log_uniform'"),
    ],
)
def test_ranges_are_checked_when_the_configuration_is_read(among: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"run.yaml: tune.space.training.learning_rate: .*{message}"):
        make({"training.learning_rate": among})
