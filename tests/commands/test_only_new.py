"""A schedule over a folder that grows, changes and shrinks, with kills at any moment."""

import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from numpy.typing import NDArray

from segbatch.cli import main
from segbatch.commands import adopt as adopt_module
from segbatch.commands import only_new
from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
from segbatch.config import load_config
from segbatch.scenes import raster
from tests.killing import Killed, kill_at

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]
FilesIn = Callable[[Path], dict[str, bytes]]

CLI = [sys.executable, "-c", "from segbatch.cli import main; main()"]


def segbatch(*words: str) -> tuple[int, str]:
    """Call the command line in this process: its exit code and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0), said.getvalue()


class Site:
    """A folder of images and the command that a schedule runs over it."""

    def __init__(self, path: Path, bundle: Path, make_raster: MakeRaster, paint: Paint) -> None:
        self.images, self.bundle = path / "in", bundle
        self._make_raster, self._paint = make_raster, paint
        self.images.mkdir()

    def write(self, name: str, seed: int, size: int = 100) -> Path:
        path = self.images / f"{name}.tif"
        where = Affine(10, 0, 5e5, 0, -10, 5e6)
        self._make_raster(path, self._paint(size, size + 20, seed), crs="EPSG:32633", transform=where)
        return path

    def words(self, out: Path, *more: str) -> list[str]:
        pattern = str(self.images / "**" / "*.tif")
        fixed = ["--engine", "inline", "--core", "64", "--only-new", *more]
        return ["predict", str(self.bundle), pattern, "--out", str(out), *fixed]

    def run(self, out: Path, *more: str) -> tuple[int, str]:
        return segbatch(*self.words(out, *more))


@pytest.fixture
def site(tmp_path: Path, tiny_bundle: Path, make_raster: MakeRaster, paint: Paint) -> Site:
    return Site(tmp_path, tiny_bundle, make_raster, paint)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def statuses(out: Path) -> dict[str, str]:
    return {row["scene"]: row["status"] for row in table(out / "index.csv")}


def last_run(out: Path) -> dict[str, str]:
    return {name: value for name, value in table(out / "runs.csv")[-1].items() if value != "0"}


def state(out: Path, files_in: FilesIn) -> dict[str, Any]:
    """All that a sequence of runs leaves, but for times and how many runs it took."""
    index = [
        {key: value for key, value in row.items() if key not in {"mapped_at", "run", "seconds"}}
        for row in table(out / "index.csv")
    ]
    return {
        "masks": files_in(out / "masks"),
        "index": index,
        "metrics": json.loads((out / "report" / "metrics.json").read_text()),
        "left": sorted(path.name for path in out.iterdir()),
    }


def grow(site: Site) -> None:
    site.write("a", 1, 600)
    site.write("b", 2)


def change(site: Site) -> None:
    site.write("b", 3, 180)
    site.write("north/a", 4)


def shrink(site: Site) -> None:
    shutil.move(site.images / "a.tif", site.images.parent / "a_away.tif")
    content = (site.write("d", 5)).read_bytes()
    (site.images / "d.tif").write_bytes(content[: len(content) // 2])


def repair(site: Site) -> None:
    site.write("d", 6)
    shutil.move(site.images.parent / "a_away.tif", site.images / "a.tif")


NIGHTS = (grow, change, shrink, repair)


def test_what_is_to_be_mapped_is_named_with_the_reason(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "run"
    site.write("a", 1)
    site.write("b", 2)
    (site.images / "empty.tif").touch()
    code, said = site.run(out)
    assert code == 3
    assert "New: a, b\nCannot be mapped: empty\n" in said
    for file in (out / "masks").glob("a.*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    (site.images / "empty.tif").unlink()
    code, said = site.run(out)
    assert code == 0
    assert "1 of 2 scenes to be mapped again, as their class masks have gone: a\n" in said
    run = last_run(out)
    assert (run["changed"], run["skipped"]) == ("1", "1")
    assert "vanished" not in run  # what never had a class mask


def test_a_folder_that_grows_changes_and_shrinks(site: Site, tmp_path: Path, files_in: FilesIn) -> None:
    out = tmp_path / "run"
    code, said = site.run(out)
    assert code == 0, said
    assert "nothing new, no scene is listed" in said  # an empty folder is none of a schedule's errors
    assert not (out / ".lock").exists()

    grow(site)
    code, said = site.run(out)
    assert code == 0
    assert "New: a, b\n" in said
    assert f"Class masks: {out / 'masks'}\n" in said
    assert last_run(out) | {"started": "", "ended": ""} == {"number": "2", "started": "", "ended": "", "new": "2"}
    first = files_in(out / "masks")
    code, said = site.run(out)
    assert (code, said.count("\n")) == (0, 1)
    assert "nothing new, 2 scenes mapped already" in said
    assert files_in(out / "masks") == first

    change(site)
    code, said = site.run(out)
    assert code == 0
    assert "1 of 2 scenes to be mapped again, as their files have changed: b" in said
    assert statuses(out) == {"a": "mapped", "b": "mapped", "north_a": "mapped"}
    second = files_in(out / "masks")
    unchanged = {name: content for name, content in first.items() if name.startswith("a")}
    assert unchanged == {name: content for name, content in second.items() if name.startswith("a")}
    with rasterio.open(out / "masks" / "b.tif") as mask:
        assert mask.shape == (180, 200)

    shrink(site)
    code, said = site.run(out)
    assert code == 3
    assert "Failed: d: " in said
    assert statuses(out) == {"a": "vanished", "b": "mapped", "north_a": "mapped", "d": "failed"}
    assert {name: content for name, content in files_in(out / "masks").items() if "d" not in name} == {
        name: content for name, content in second.items() if "d" not in name
    }
    page = (out / "report" / "report.html").read_text().partition('<table id="index">')[2]
    assert page.index(">vanished<") < page.index(">mapped<")
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    assert {scene["id"]: scene["status"] for scene in metrics["scenes"]} == {
        "a": "unlabelled", "b": "unlabelled", "north_a": "unlabelled", "d": "failed",
    }  # fmt: skip
    assert site.run(out)[0] == 3  # tried again, and named again
    code, told = segbatch("info", str(out))
    assert code == 0
    assert "2 mapped" in told
    assert "1 vanished" in told
    assert "exit code 3" in told

    repair(site)
    assert site.run(out)[0] == 0
    run = last_run(out)
    assert (run["new"], run["skipped"]) == ("1", "3")
    assert set(statuses(out).values()) == {"mapped"}
    # Against one run over what is there at last: the same pixels and the same sums.
    code, said = segbatch(*[word for word in site.words(tmp_path / "plain" / "run") if word != "--only-new"])
    assert code == 0, said
    plain, ours = (
        json.loads((path / "report" / "metrics.json").read_text()) for path in (tmp_path / "plain" / "run", out)
    )
    assert ours["classes"] == plain["classes"]
    assert sorted(rasterio.open(path).checksum(1) for path in (out / "masks").glob("*.tif")) == sorted(
        rasterio.open(path).checksum(1) for path in (tmp_path / "plain" / "run" / "masks").glob("*.tif")
    )


def test_a_scene_on_which_a_library_fails_fails_alone(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    grow(site)
    describe = raster._describe

    def fail_on_b(uri: str, *more: Any) -> Any:
        if uri.endswith("b.tif"):
            raise ValueError("not a valid WKT")
        return describe(uri, *more)

    with monkeypatch.context() as patch:
        patch.setattr(raster, "_describe", fail_on_b)
        code, said = site.run(out)
    assert code == 3
    assert f"Failed: b: {site.images / 'b.tif'} cannot be read: ValueError: not a valid WKT" in said
    assert statuses(out) == {"a": "mapped", "b": "failed"}
    assert site.run(out)[0] == 0
    assert set(statuses(out).values()) == {"mapped"}


def test_a_folder_that_is_not_mounted_is_no_folder_that_is_empty(site: Site, tmp_path: Path, files_in: FilesIn) -> None:
    out, away = tmp_path / "run", tmp_path / "away"
    site.write("a", 1)
    site.write("b", 2)
    assert site.run(out)[0] == 0
    before = state(out, files_in)
    site.images.rename(away)
    code, said = site.run(out)
    assert code == 2
    assert f"the folder {site.images} does not exist. Mount or make it" in said
    site.images.mkdir()  # where it would be mounted
    code, said = site.run(out)
    assert code == 2
    assert f"All that {out} has mapped has gone (2 scenes, as {site.images / 'a.tif'})" in said
    assert "is a folder not mounted?" in said
    assert state(out, files_in) == before
    assert last_run(out)["exit_code"] == "2"
    code, said = segbatch("status", str(out))
    assert re.search(r"state +failed\n", said)
    assert "ended with exit code 2" in said
    assert "nothing new" not in said
    (site.images / "d.tif").write_bytes(b"half of a file")
    code, said = site.run(out)
    assert code == 3
    assert "Failed: d: " in said
    assert "Warning: All that" in said
    (site.images / "d.tif").unlink()
    # An inbox: what was mapped is taken away, and what comes is new.
    site.write("c", 3)
    code, said = site.run(out)
    assert code == 0, said
    assert statuses(out) == {"a": "vanished", "b": "vanished", "c": "mapped"}
    for name in "ab":
        shutil.move(away / f"{name}.tif", site.images)
    (site.images / "c.tif").unlink()
    assert site.run(out)[0] == 0
    assert statuses(out) == {"a": "mapped", "b": "mapped", "c": "vanished"}


CHANGES = (
    (adopt_module, "write_json"), (adopt_module, "write_whole"), (adopt_module, "forget_scenes"),
    (adopt_module, "_put"), (adopt_module, "_remove"), (shutil, "rmtree"), (only_new, "report"),
    (only_new, "map_scenes"), (Path, "replace"), (Path, "unlink"),
)  # fmt: skip
"""All that changes a file or folder."""


def test_a_kill_at_any_step_of_putting_in_place_loses_nothing(
    site: Site, tmp_path: Path, files_in: FilesIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, start = tmp_path / "clean" / "run", tmp_path / "start"
    site.write("a", 1)
    site.write("b", 2)
    assert site.run(clean)[0] == 0
    shutil.copytree(clean, start)
    (site.images / "a.tif").unlink()
    site.write("b", 3, 140)
    (site.images / "d.tif").write_bytes(b"not an image")
    assert site.run(clean)[0] == 3
    expected = state(clean, files_in)
    old, new = (json.loads((path / "report" / "metrics.json").read_text()) for path in (start, clean))
    number, out = 0, tmp_path / "killed" / "run"
    ended = False
    while not ended:
        number += 3  # each third step, at places that differ as steps come and go
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(start, out)
        with monkeypatch.context() as patch:
            patch.setattr(only_new, "hold", contextlib.nullcontext)  # the locks of the dead are another test's
            kill_at(number, patch, CHANGES)
            try:
                site.run(out)
                ended = True
            except Killed:
                pass
        with rasterio.open(out / "masks" / "b.tif") as mask:  # the old one or the new one, never none
            assert mask.shape in {(100, 120), (140, 160)}
        document = json.loads((out / "report" / "metrics.json").read_text())
        assert document["pixels"] in {old["pixels"], new["pixels"]}
        assert site.run(out)[0] == 3
        assert state(out, files_in) == expected, number
    assert number > 20


@pytest.mark.slow
def test_a_schedule_with_kills_and_overlapping_starts_ends_as_an_undisturbed_one(
    site: Site, tmp_path: Path, files_in: FilesIn
) -> None:
    """A loop as cron's starts the command every so often, whether the one before has ended or not."""
    rng = random.Random(20)
    clean, out = tmp_path / "clean" / "run", tmp_path / "cron" / "run"

    def start(folder: Path) -> subprocess.Popen[str]:
        said = subprocess.PIPE
        return subprocess.Popen([*CLI, *site.words(folder)], stdout=subprocess.DEVNULL, stderr=said, text=True)

    skipped = 0
    for night in NIGHTS:
        night(site)
        before = time.monotonic()
        undisturbed = start(clean)
        undisturbed.communicate()
        seconds = time.monotonic() - before
        running: list[subprocess.Popen[str]] = []
        for _ in range(3):
            running.append(start(out))
            time.sleep(rng.uniform(0.1, 1) * seconds)
            rng.choice(running).kill()
        running += [start(out), start(out)]
        for process in running:
            _, said = process.communicate()
            skipped += "This run is skipped" in said
            assert process.returncode in (0, undisturbed.returncode, -signal.SIGKILL), said
        last = start(out)
        assert "This run is skipped" not in last.communicate()[1]
        assert last.returncode == undisturbed.returncode
        assert state(out, files_in) == state(clean, files_in), night
    assert skipped > 0
    assert len(table(out / "runs.csv")) > len(NIGHTS)


def test_what_a_killed_cleaning_up_left_is_never_taken_for_tonights(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    staged = adopt_module.stage(folder, {"a": "old"})
    (staged.masks / "a.zarr").mkdir(parents=True)
    assert (adopt_module.stage(folder, {"a": "old"}).masks / "a.zarr").exists()
    (folder.next / "staged.json").unlink()  # what is removed first
    assert not (adopt_module.stage(folder, {"a": "new"}).masks / "a.zarr").exists()


def test_a_file_that_is_still_being_written_is_mapped_by_the_next_run(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    site.write("a", 1)
    site.write("b", 2)
    assert site.run(out)[0] == 0
    before = (out / "masks" / "a.tif").read_bytes()
    site.write("a", 3)
    site.write("c", 4)
    mapping = only_new.map_scenes

    def written_meanwhile(*args: Any) -> Any:
        found = mapping(*args)
        site.write("a", 5, 140)
        site.write("c", 6, 140)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(only_new, "map_scenes", written_meanwhile)
        code, said = site.run(out)
    assert code == 0, said
    assert "a: it changed while it was read" in said
    assert statuses(out) == {"a": "changed", "b": "mapped", "c": "changed"}
    assert (out / "masks" / "a.tif").read_bytes() == before
    assert not (out / "masks" / "c.tif").exists()
    assert site.run(out)[0] == 0
    assert set(statuses(out).values()) == {"mapped"}
    for name in "ac":
        with rasterio.open(out / "masks" / f"{name}.tif") as mask:
            assert mask.shape == (140, 160)


def test_another_model_or_other_settings_map_all_again_and_it_is_said_before(
    site: Site, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    site.write("a", 1)
    gone = site.write("b", 2)
    assert site.run(out)[0] == 0
    gone.unlink()
    code, said = site.run(out, "--halo", "8")
    assert code == 0
    assert "1 of 2 scenes to be mapped again, as they differ in core, halo or block size: " in said
    assert said.index("mapped again") < said.index("1/1 blocks")
    shutil.copytree(tiny_bundle, tmp_path / "other")
    card = json.loads((tiny_bundle / "segbatch.json").read_text())
    (tmp_path / "other" / "segbatch.json").write_text(json.dumps({**card, "mean": [1, 2, 3]}))
    site.bundle = tmp_path / "other"
    code, said = site.run(out, "--halo", "8")
    assert code == 0
    assert "1 of 2 scenes to be mapped again, as they differ in the bundle: " in said
    bundles = {row["scene"]: row["bundle"] for row in table(out / "index.csv")}
    assert bundles["a"] != bundles["b"]
    # What comes back is not what the new model would make of it.
    site.write("b", 2)
    assert "1 of 2 scenes to be mapped again" in site.run(out, "--halo", "8")[1]
    renamed = {**card, "classes": [{**item, "name": f"{item['name']}s"} for item in card["classes"]]}
    (tmp_path / "other" / "segbatch.json").write_text(json.dumps(renamed))
    code, said = site.run(out, "--halo", "8")
    assert code == 2
    assert "was mapped with the classes water" in said
    assert table(out / "runs.csv")[-1]["exit_code"] == "2"


def test_masks_that_have_gone_and_formats_asked_for_later_are_made(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "run"
    site.write("a", 1)
    assert site.run(out, "--format", "cog")[0] == 0
    (out / "masks" / "a.tif").unlink()
    assert site.run(out, "--format", "cog")[0] == 0
    assert (out / "masks" / "a.tif").exists()
    assert site.run(out)[0] == 0
    assert (out / "masks" / "a.zarr").exists()
    assert site.run(out, "--confidence")[0] == 0
    assert (out / "masks" / "confidence" / "a.tif").exists()
    assert "nothing new" in site.run(out, "--confidence")[1]


def test_a_folder_mapped_without_a_schedule_is_taken_over_and_not_given_back(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "run"
    site.write("a", 1)
    plain = [word for word in site.words(out) if word != "--only-new"]
    assert segbatch(*plain)[0] == 0
    assert "nothing new, 1 scene mapped already" in site.run(out)[1]
    site.write("b", 2)
    assert site.run(out)[0] == 0
    assert last_run(out)["skipped"] == "1"
    code, said = segbatch(*plain)
    assert code == 2
    assert "is mapped into with --only-new" in said
    code, said = segbatch(*plain, "--overwrite")
    assert code == 0
    assert not (out / "index.csv").exists()
    code, said = site.run(out, "--overwrite")
    assert code == 2
    assert "give one of them" in said


def test_an_overrun_is_no_error_and_says_who_is_at_it(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "run"
    site.write("a", 1)
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys, time\nfrom pathlib import Path\nfrom segbatch.commands.lock import hold\n"
         "from segbatch.commands.folder import RunFolder\nwith hold(RunFolder(Path(sys.argv[1]))):\n"
         "    print('held', flush=True)\n    time.sleep(60)", str(out)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    try:
        code, said = site.run(out)
        plain = segbatch(*[word for word in site.words(out) if word != "--only-new"])
    finally:
        process.kill()
        process.wait()
    assert (code, said.count("\n")) == (0, 1)
    assert f"process {process.pid} on " in said
    assert "This run is skipped" in said
    assert plain[0] == 2
    assert f"process {process.pid} on " in plain[1]


def test_an_error_is_noted_with_its_exit_code(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    site.write("a", 1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(only_new, "map_scenes", stop)
        assert site.run(out)[0] == 130
    assert last_run(out)["exit_code"] == "130"
    assert site.run(out)[0] == 0
    assert [row["exit_code"] for row in table(out / "runs.csv")] == ["130", "0"]


def test_a_table_is_read_afresh_and_labels_are_compared(site: Site, tmp_path: Path, make_raster: MakeRaster) -> None:
    out = tmp_path / "run"
    site.write("a", 1)
    site.write("b", 2)
    make_raster(tmp_path / "a_label.tif", np.ones((100, 120), np.uint8))
    names = ["water", "forest", "field", "town"]
    config = tmp_path / "nightly.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "name": "nightly",
                "output": str(out),
                "classes": [{"name": name} for name in names],
                "scenes": {"predict": [{"table": str(tmp_path / "scenes.csv")}]},
                "inference": {"engine": "inline", "core": 64},
            }
        )
    )
    words = "predict", str(site.bundle), "--config", str(config), "--only-new"
    (tmp_path / "scenes.csv").write_text("image,label\n")
    assert "nothing new" in segbatch(*words)[1]
    (tmp_path / "scenes.csv").write_text("image,label\nin/b.tif,\n")
    assert segbatch(*words)[0] == 0
    (tmp_path / "scenes.csv").write_text("image,label\nin/a.tif,a_label.tif\nin/b.tif,\n")
    assert segbatch(*words)[0] == 0
    assert last_run(out)["skipped"] == "1"  # that there are labels now changes nothing of scenes without
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    assert np.sum(metrics["confusion"]) == 100 * 120
    (tmp_path / "scenes.csv").write_text("image,label\nin/a.tif,a_label.tif\n")
    assert segbatch(*words)[0] == 0
    assert statuses(out) == {"b": "vanished", "a": "mapped"}  # it is there, but not listed any more


def test_a_trained_run_goes_on_without_training_or_ray(
    site: Site, tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    import segbatch.commands.train as train_module
    from segbatch.commands.split import open_labelled, split_table

    out = tmp_path / "run"
    for index in range(2):
        site.write(f"../train{index}", index, 160)
        make_raster(tmp_path / f"label{index}.tif", np.ones((160, 180), np.uint8))
    entries = [{"image": f"train{index}.tif", "label": f"label{index}.tif"} for index in range(2)]
    config = tmp_path / "nightly.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "name": "nightly",
                "output": str(out),
                "classes": [{"name": name} for name in ("water", "forest", "field", "town")],
                "scenes": {
                    "root": str(tmp_path),
                    "train": entries[:1],
                    "validate": entries[1:],
                    "predict": [{"image": "in/*.tif"}],
                },
                "training": {"tile": 64},
                "inference": {"engine": "inline", "core": 64},
            }
        )
    )
    settings = load_config(str(config), ())
    shutil.copytree(site.bundle, out / "bundle")
    scenes = open_labelled(settings)
    identity = train_module.fingerprint(settings, scenes, [None, None])
    known = {"state": "done", "fingerprint": identity, "starting": [None, None], "history": []}
    RunFolder(out).update(name="nightly", training=known)
    RunFolder(out).split.write_bytes(split_table(settings, scenes))
    monkeypatch.setattr(train_module, "ray_session", lambda address: pytest.fail("Ray was started"))
    site.write("a", 1)
    code, said = segbatch("run", str(config), "--only-new")
    assert code == 0, said
    assert statuses(out) == {"a": "mapped"}
    code, said = segbatch("run", str(config), "--only-new")
    assert (code, said.count("\n")) == (0, 1), said
    # What becomes of the training's part stops no night; each is told in a line of its own.
    epochs = "--set", "training.epochs=3"
    code, said = segbatch("run", str(config), "--only-new", *epochs)
    assert (code, said.count("\n")) == (0, 2), said
    assert "Warning: Files that the model was trained on, or settings of its training, have changed" in said
    assert f"Mapping goes on with {out / 'bundle'}. For a new model: segbatch train with another output" in said
    code, said = segbatch("run", str(config), *epochs)
    assert code == 2
    assert "holds a training with other scenes or settings" in said
    os.utime(tmp_path / "label0.tif", (1, 1))
    site.write("b", 2)
    code, said = segbatch("run", str(config), "--only-new")
    assert code == 0, said
    assert "Warning: Files that the model was trained on" in said
    assert statuses(out) == {"a": "mapped", "b": "mapped"}
    code, said = segbatch("run", str(config), "--only-new", "--set", "scenes.train.0.window.height=128")
    assert (code, said.count("\n")) == (0, 2), said
    assert f"have other scenes or windows by now than {out / 'split.csv'}." in said
    (tmp_path / "train0.tif").unlink()
    code, said = segbatch("run", str(config), "--only-new")
    assert (code, said.count("\n")) == (0, 2), said
    assert f"is not there as it was: {tmp_path / 'train0.tif'} does not exist." in said
    code, said = segbatch("predict", str(site.bundle), "--config", str(config), "--only-new")
    assert code == 0, said  # the same model at another place is the same model


def test_a_person_may_remove_a_lock_of_nobody(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    site.write("a", 1)
    (out / ".lock").write_text("")
    os.utime(out / ".lock", (1, 1))
    assert site.run(out)[0] == 0
    with hold(RunFolder(out)):
        assert (out / ".lock").exists()
