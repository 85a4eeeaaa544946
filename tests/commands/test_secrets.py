"""Planted secrets turn up in no file of a run and in nothing that is said."""

import base64
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from segbatch.cli import main
from segbatch.commands.split import split_table, warn_of_known
from segbatch.commands.trials import TrialLog
from segbatch.config import parse_config
from segbatch.scenes import SceneRef, open_scene
from segbatch.scenes.atlas import Part
from segbatch.scenes.catalog import read_table
from segbatch.training import trainer

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]

USER, PASSWORD = "ada-secret-user", "plantedPassword1"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "plantedAws2",
    "AWS_SESSION_TOKEN": "plantedSession3",
    "RAY_AUTH_TOKEN": "plantedRay4",
    "MLFLOW_TRACKING_PASSWORD": "plantedMlflow5",
    "GDAL_HTTP_BEARER": "plantedBearer6",
}
SIGNATURES = {"sig": "plantedSignature7", "X-Amz-Signature": "plantedAmz8", "code": "plantedCode9"}
PLANTED = [USER, PASSWORD, *SECRETS.values(), *SIGNATURES.values()]


class Site:
    """`guarded_site` at work."""

    def __init__(self, folder: Path, known: Path) -> None:
        self._known = known
        self.sign()
        command = [sys.executable, str(Path(__file__).with_name("guarded_site.py")), str(folder), str(known)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.host = f"127.0.0.1:{int(self.process.stdout.readline())}"

    def sign(self) -> None:
        """From now on take these signatures alone."""
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self._known.write_text(json.dumps({"authorization": basic, "signatures": SIGNATURES}))

    def address(self, name: str, query: str | None = None) -> str:
        signed = "&".join(f"{key}={value}" for key, value in SIGNATURES.items())
        return f"http://{USER}:{PASSWORD}@{self.host}/{name}?{signed if query is None else query}"


@pytest.fixture
def site(tmp_path: Path, make_raster: MakeRaster, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in SECRETS.items():
        if name != "GDAL_HTTP_BEARER":  # with it GDAL would not send the password
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "site"
    make_raster(folder / "good.tif", paint(120, 150, 1), crs="EPSG:32633")
    make_raster(folder / "good_label.tif", np.full((120, 150), 2, np.uint8), crs="EPSG:32633")
    damaged = Path(make_raster(folder / "damaged.tif", paint(300, 300, 2), tiled=True, blockxsize=64, blockysize=64))
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 3])
    found = Site(folder, tmp_path / "known.json")
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A function that runs a command line and gives its exit code and all that was said, by GDAL, too."""

    def call(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return call


def leaks(folder: Path) -> list[tuple[str, str]]:
    """(file, secret) of each planted secret in a file or in its name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        (str(file.relative_to(folder)), secret)
        for file in files
        for secret in PLANTED
        if secret.encode() in file.read_bytes() or secret in str(file.relative_to(folder))
    ]


def said(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


def test_no_secret_of_an_address_is_left(
    site: Site, tiny_bundle: Path, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    good, damaged, label = (site.address(f"{name}.tif") for name in ("good", "damaged", "good_label"))
    table = tmp_path / "scenes.csv"
    table.write_text(f'image,label\n"{good}","{label}"\n"{damaged}",\n')
    config = {
        "name": "n",
        "output": str(tmp_path / "run"),
        "classes": [{"name": name} for name in ("water", "forest", "field", "town")],
        "scenes": {"predict": [{"table": str(table)}]},
        "inference": {"engine": "inline", "core": 64, "block_mb": 1},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    command = "predict", tiny_bundle, "--config", file
    code, text = run(*command)
    assert code == 3, text
    assert not said(text)
    assert not leaks(tmp_path / "run")
    document = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert [scene["status"] for scene in document["scenes"]] == ["done", "failed"]
    assert [scene["id"] for scene in document["scenes"]] == ["good", "damaged"]
    assert document["scenes"][0]["image"].startswith(f"http://***@{site.host}/good.tif?***")
    assert f"***@{site.host}/damaged.tif" in document["failed"][0]["error"]
    # The report that the command writes shows the scene itself; later ones say why they cannot.
    page = tmp_path / "run" / "report" / "report.html"
    assert "cannot be shown" not in page.read_text()
    code, text = run("report", tmp_path / "run")
    assert code == 3, text
    assert not said(text)
    assert not leaks(tmp_path / "run")
    assert "has lost its password or signature" in page.read_text()
    # The command itself knows them and goes on.
    code, text = run(*command, "--debug")
    assert code == 3, text
    assert "cannot be shown" not in page.read_text()
    assert not said(text)
    assert not leaks(tmp_path / "run")


def test_a_schedule_keeps_no_secrets_and_knows_its_scenes_by_a_new_signature(
    site: Site, tiny_bundle: Path, tmp_path: Path, run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    more = "--out", out, "--only-new", "--engine", "inline", "--core", 64
    code, text = run("predict", tiny_bundle, site.address("good.tif"), site.address("gone.tif"), *more)
    assert code == 3, text
    assert not said(text)
    assert not leaks(out)
    assert "gone" in (out / "index.csv").read_text()
    monkeypatch.setitem(SIGNATURES, "sig", "plantedRenewed10")
    site.sign()
    code, text = run("predict", tiny_bundle, site.address("good.tif"), *more)
    assert code == 0, text
    scenes, runs = (list(csv.DictReader((out / name).open())) for name in ("index.csv", "runs.csv"))
    assert [row["scene"] for row in scenes] == ["good"]
    assert [(row["new"], row["skipped"]) for row in runs] == [("1", "0"), ("0", "1")]
    assert "plantedRenewed10" not in text
    assert not leaks(out)


@pytest.fixture
def ray_logs(ray_cluster: None) -> Path:
    """The folder in which Ray keeps what its processes say, and all of it that this test sets off."""
    from ray._private.worker import global_worker

    return Path(global_worker.node.get_logs_dir_path())


@pytest.mark.ray
def test_ray_notes_no_secrets_of_a_mapping(
    site: Site, tiny_bundle: Path, tmp_path: Path, run: Callable[..., tuple[int, str]], ray_logs: Path
) -> None:
    images, out = [site.address(f"{name}.tif") for name in ("good", "damaged")], tmp_path / "run"
    code, text = run("predict", tiny_bundle, *images, "--out", out, "--core", 64, "--debug")
    assert code == 3, text
    assert not said(text)
    assert not leaks(out)
    assert not leaks(ray_logs)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "tune"])
def test_a_training_and_a_search_keep_no_secrets(
    site: Site,
    tmp_path: Path,
    run: Callable[..., tuple[int, str]],
    make_raster: MakeRaster,
    paint: Paint,
    ray_logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    """Whether all is well, or a scene is damaged when it is counted, or when it is learned from."""
    for seed, name in enumerate(("left", "right")):
        make_raster(tmp_path / "site" / f"{name}.tif", paint(128, 160, seed), tiled=True, blockxsize=64, blockysize=64)
    for name, (height, width) in (("left", (128, 160)), ("right", (128, 160)), ("damaged", (300, 300))):
        make_raster(tmp_path / "site" / f"{name}_label.tif", paint(height, width)[0] % 2)
    left, right, damaged = (
        {"image": site.address(f"{name}.tif"), "label": site.address(f"{name}_label.tif")}
        for name in ("left", "right", "damaged")
    )

    def check(out: str, scenes: list[dict[str, str]], expected: int, fault: str = "") -> None:
        config = {
            "name": "n",
            "output": str(tmp_path / out),
            "classes": [{"name": "dark"}, {"name": "bright"}],
            "label_values": {0: "dark", 1: "bright"},
            "scenes": {"train": scenes, "validate": [right]},
            "model": {"encoder": "resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}},
            "training": {"epochs": 1, "steps_per_epoch": 2, "tile": 64, "batch_size": 2},
        }
        if command == "tune":
            config["tune"] = {"space": {"training.learning_rate": [0.001, 0.002]}}
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(config))
        code, text = run(command, file, "--debug")
        assert code == expected, text
        assert fault in text
        assert not said(text), text
        assert not leaks(tmp_path / out)
        assert not leaks(ray_logs)

    check("well", [left], 0)
    check("counted", [left, damaged], 1, "damaged.tif?***")
    survey = trainer.survey_scenes

    def spoil_after(*details: Any) -> Any:
        found, file = survey(*details), tmp_path / "site" / "left.tif"
        file.write_bytes(file.read_bytes()[:20_000])
        return found

    monkeypatch.setattr(trainer, "survey_scenes", spoil_after)
    check("learned", [left], 1, "left.tif?***")


@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_errors_show_no_secrets(
    site: Site, tiny_bundle: Path, tmp_path: Path, run: Callable[..., tuple[int, str]], debug: tuple[str, ...]
) -> None:
    for arguments in (
        ("info", site.address("gone.tif")),
        ("predict", tiny_bundle, site.address("gone.tif"), "--out", tmp_path / "run"),
        (
            "predict",
            tiny_bundle,
            site.address("good.tif"),
            "--label",
            site.address("gone.tif"),
            "--out",
            tmp_path / "r",
        ),
        ("predict", tiny_bundle, site.address("good.tif"), site.address("good.tif", "sig=other"), "--out", tmp_path),
        ("evaluate", "--prediction", site.address("gone.tif"), "--label", "l.tif", "--out", tmp_path / "e"),
    ):
        code, text = run(*arguments, *debug)
        assert code == 2, text
        assert "Error: " in text
        assert not said(text), text
        assert ("Traceback" in text) == bool(debug)


def test_the_table_of_a_split_keeps_no_secrets(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_raster: MakeRaster, paint: Paint
) -> None:
    local = make_raster(tmp_path / "local.tif", paint(40, 40))
    with open_scene(local) as reader:
        info = reader.info
    address = site.address("good.tif")
    ref = SceneRef("good", address, site.address("good_label.tif"))
    config = parse_config({"name": "n", "output": "o", "classes": [{"name": "a"}, {"name": "b"}], "scenes": {}}, "test")
    path = tmp_path / "split.csv"
    path.write_bytes(split_table(config, {"train": [Part(ref, info)], "validate": []}))
    assert not said(path.read_text())
    warn_of_known([ref], path)
    assert "the model was trained or validated on good" in capsys.readouterr().err
    (kept,) = read_table(str(path))
    with pytest.raises(Exception, match="has lost its password or signature"):
        open_scene(kept.image)


def test_a_search_notes_no_secrets(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    reason = f"http://{USER}:{PASSWORD}@h/a.tif?sig={SIGNATURES['sig']} is damaged"
    log.add({"kind": "end", "trial": 1, "state": "failed", "reason": reason})
    assert not said((tmp_path / "trials.jsonl").read_text())
    assert "***@h/a.tif?*** is damaged" in log.events[0]["reason"]
