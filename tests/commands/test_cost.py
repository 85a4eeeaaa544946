"""What a run costs: by the table, per area or scene, over all its calls, and never part of what the run is."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from segbatch.commands import forecast, usage
from segbatch.commands.cost import amount, cost_document, cost_facts, estimate, money
from segbatch.commands.folder import RunFolder
from segbatch.commands.forecast import Forecast, plan_lines
from segbatch.commands.inform import inform
from segbatch.commands.only_new import map_new
from segbatch.commands.plan import plan
from segbatch.commands.predict import predict
from segbatch.commands.record import scene_km2
from segbatch.commands.report import rebuild
from segbatch.commands.request import Request
from segbatch.commands.usage import Usage
from segbatch.config import Prices, parse_section
from segbatch.errors import InputError
from segbatch.inference.plan import costs
from segbatch.scenes import SceneInfo

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]
MakeRequest = Callable[..., Request]

USED = Usage(2, 2.0, 4.0, 16.0, {"H100": 2.0, "T4": 1.0})


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({"cpu_hour": 0.05}, 0.8),
        ({"node_hour": 1.5}, 6.0),
        ({"gpu_hour": 2}, 6.0),
        ({"gpu_hour": {"h100": 3, "T4": 0.5}}, 6.5),
        ({"cpu_hour": 0.05, "node_hour": 1.5, "gpu_hour": {"H100": 3, "T4": 0.5}}, 13.3),
        ({"gpu_hour": {"H100": 3}}, None),
        ({"gpu_hour": 0}, 0.0),
    ],
)
def test_the_table_is_added_up(prices: dict[str, Any], expected: float | None) -> None:
    found = amount(Prices(**prices), USED)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("prices", "message"),
    [
        ({}, "give cpu_hour, gpu_hour or node_hour"),
        ({"currency": "EUR", "gpu_hour": {}}, "give cpu_hour, gpu_hour or node_hour"),
        ({"cpu_hour": -1}, "cpu_hour: .*greater than or equal to 0"),
        ({"cpu_hour": math.inf}, "cpu_hour: .*finite"),
        ({"gpu_hour": {"T4": "much"}}, "gpu_hour.*number"),
        ({"cpu_hours": 1}, "unknown key; did you mean 'cpu_hour'"),
    ],
)
def test_a_wrong_table_is_refused(prices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_section(Prices, prices, "cluster.prices")


def test_facts_name_the_shares() -> None:
    prices = Prices(currency="EUR", cpu_hour=0.1)
    steps = {"training": Usage(1, 1, 1, 8), "mapping": Usage(2, 0.5, 0.5, 4)}
    facts = dict(cost_facts(cost_document(prices, steps, [12.0, 8.0])))
    assert facts["cost"] == "1.20 EUR, 0.80 EUR of it training; mapping 20.00 EUR for 1,000 km2"
    assert facts["resources held"] == "12 CPU hours, 1.5 node hours, in 3 calls"
    facts = dict(cost_facts(cost_document(prices, steps, [12.0, None])))
    assert facts["cost"].endswith("; mapping 0.20 EUR a scene")
    facts = dict(cost_facts(cost_document(prices, {"training": Usage(1, 1, 1, 8)}, [])))
    assert facts["cost"] == "0.80 EUR"
    facts = dict(cost_facts(cost_document(Prices(gpu_hour={"T4": 1}), {"mapping": USED}, [1.0])))
    assert facts["cost"] == "not known: cluster.prices.gpu_hour has no H100"
    assert facts["resources held"] == "16 CPU hours, 2 H100 hours, 1 T4 hours, 4 node hours, in 2 calls"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0.00 X"), (1234.567, "1,234.57 X"), (0.5, "0.50 X"), (0.0123, "0.012 X"), (0.00001234, "0.000012 X")],
)
def test_small_amounts_have_digits_that_count(value: float, shown: str) -> None:
    assert money(value, "X") == shown


def info(crs: str | None, transform: Affine, width: int, height: int) -> SceneInfo:
    wkt = None if crs is None else CRS.from_user_input(crs).to_wkt()
    return SceneInfo("a.tif", width, height, "uint8", ("",), None, None, wkt, transform, -1, -1)


def test_square_kilometres() -> None:
    assert scene_km2(info(None, Affine.identity(), 10, 10)) is None
    assert scene_km2(info("EPSG:32633", Affine.scale(10, -10), 200, 300)) == pytest.approx(6.0)
    feet = info("EPSG:2263", Affine.scale(10, -10), 200, 300)
    assert scene_km2(feet) == pytest.approx(6.0 * (1200 / 3937) ** 2)
    earth = info("EPSG:4326", Affine(0.5, 0, -180, 0, -0.5, 90), 720, 360)
    assert scene_km2(earth) == pytest.approx(510_065_600, rel=1e-4)
    # A degree at 45 degrees north: 111.13 km by 78.85 km on the ellipsoid.
    degree = info("EPSG:4326", Affine(0.001, 0, 10, 0, -0.001, 45.5), 1000, 1000)
    assert scene_km2(degree) == pytest.approx(111.13 * 78.85, rel=0.005)


@pytest.fixture
def scene(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> dict[str, str]:
    at = Affine(10, 0, 400000, 0, -10, 5000000)
    return {"a": make_raster(tmp_path / "a.tif", paint(100, 200, 1), crs="EPSG:32633", transform=at)}


def priced(**prices: Any) -> dict[str, Any]:
    return {"cluster": {"prices": prices or None}}


def test_a_run_tells_what_all_its_calls_have_cost(
    tmp_path: Path,
    make_raster: MakeRaster,
    paint: Paint,
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = RunFolder(tmp_path / "run")
    shape = {"block_mb": 1, "core": 256}
    at = Affine(10, 0, 400000, 0, -10, 5000000)
    scenes = {"a": make_raster(tmp_path / "a.tif", paint(100, 2000, 1), crs="EPSG:32633", transform=at)}
    with monkeypatch.context() as killed:
        killed.setattr("segbatch.commands.predict._finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict(make_request(folder.path, scenes, inference=shape, config=priced(currency="EUR", cpu_hour=0.1)))
    # Other prices are the same run: what is left is done.
    document = predict(
        make_request(folder.path, scenes, inference=shape, config=priced(currency="EUR", node_hour=3600))
    )
    found = usage.read_usage(folder)["mapping"]
    assert found.calls == 2
    assert found.hours > 0
    cost = document["cost"]
    assert cost == json.loads((folder.path / "run.json").read_text())["cost"]
    assert cost["total"] == pytest.approx(found.hours * 3600)
    assert cost["km2"] == pytest.approx(20.0)
    assert cost["per_1000_km2"] == pytest.approx(cost["total"] / 20 * 1000)
    page = (folder.path / "report" / "report.html").read_text()
    assert "<dt>cost</dt>" in page
    assert "EUR for 1,000 km2" in page
    assert "in 2 calls" in page
    assert dict(inform(str(folder.path)))["cost"].endswith("EUR for 1,000 km2")
    # Of a run that is done, prices may change, too.
    again = predict(make_request(folder.path, scenes, inference=shape, config=priced(currency="CHF", node_hour=7200)))
    assert again["cost"]["currency"] == "CHF"
    assert again["cost"]["total"] == pytest.approx(2 * cost["total"])
    assert rebuild(folder) == again


def test_a_schedule_with_nothing_new_tells_the_costs_by_new_prices(
    tmp_path: Path, scene: dict[str, str], make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")

    def told() -> dict[str, Any]:
        cost = json.loads((folder.report / "metrics.json").read_text())["cost"]
        assert cost == folder.read()["cost"]
        return dict(cost)

    assert map_new(make_request(folder.path, scene, config=priced(currency="EUR", node_hour=3600))).run.new == 1
    before = told()
    assert map_new(make_request(folder.path, scene, config=priced(currency="CHF", node_hour=7200))).document is None
    assert (told()["currency"], told()["total"]) == ("CHF", pytest.approx(2 * before["total"]))
    with monkeypatch.context() as patch:
        patch.setattr("segbatch.commands.only_new.report", lambda *_: pytest.fail("the prices are the same"))
        assert map_new(make_request(folder.path, scene, config=priced(currency="CHF", node_hour=7200))).run.skipped == 1


def test_without_prices_nothing_is_told(
    tmp_path: Path, scene: dict[str, str], make_request: MakeRequest, files_in: Callable[[Path], dict[str, bytes]]
) -> None:
    for name in ("one", "two"):
        document = predict(make_request(tmp_path / name, scene, config=priced()))
        assert "cost" not in document
        assert "cost" not in (tmp_path / name / "report" / "report.html").read_text()
        assert not json.loads((tmp_path / name / "run.json").read_text()).get("cost")
    assert files_in(tmp_path / "one" / "report") == files_in(tmp_path / "two" / "report")


def test_a_training_tells_what_it_has_cost(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    config = {
        **priced(currency="EUR", cpu_hour=1),
        "classes": [{"name": "a", "color": None}, {"name": "b", "color": None}],
    }
    row = {"epoch": 1, "loss": 1.0, "miou": 0.5, "iou": [0.5, 0.5], "learning_rate": 0.1, "tiles_per_second": 1.0}
    history = [{**row, "waited": 0.0, "train_seconds": 1.0, "validate_seconds": 1.0}]
    folder.update(name="t", config=config, training={"state": "done", "history": history})
    with usage.metered(folder, "training", lambda: usage.Held(1, 3600)):
        pass
    assert rebuild(folder) is None
    assert "<dt>cost</dt>" in (tmp_path / "report" / "report.html").read_text()


def test_a_plan_tells_the_cost_beside_the_time(
    tmp_path: Path, scene: dict[str, str], make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, request = make_request(tmp_path, scene), make_request(tmp_path, scene, config=priced(node_hour=2))
    planned = plan(request)
    assert "cost" not in dict(plan_lines(bare, planned))
    assert dict(plan_lines(request, planned))["cost"] == "not known yet, as the time is not"
    known = Forecast(costs(planned.scenes), 1e9, 1e9, 1800.0, "by an earlier run")
    monkeypatch.setattr(forecast, "forecast", lambda *_: known)
    monkeypatch.setattr(forecast, "this_machine", lambda: usage.Held(1, 4))
    told = dict(plan_lines(request, planned))["cost"]
    assert told == "about 1.00 USD, 500.00 USD for 1,000 km2: 2 CPU hours, 0.5 node hours"
    for prices in ({"gpu_hour": 2.9}, {"gpu_hour": {"H100": 2.9}, "cpu_hour": 0}):
        told = dict(plan_lines(make_request(tmp_path, scene, config=priced(**prices)), planned))["cost"]
        assert told.startswith("not known: cluster.prices has no cpu_hour or node_hour, and what GPUs would take")
    assert estimate(Prices(cpu_hour=1), Usage(hours=1, cpu_hours=1), [None, None]).startswith(
        "about 1.00 USD, 0.50 USD a scene"
    )
