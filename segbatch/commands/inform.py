"""What a scene, a bundle, a class mask, a run or a configuration is."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from segbatch.commands.cost import cost_facts
from segbatch.commands.folder import RunFolder
from segbatch.commands.index import Index
from segbatch.commands.look import look
from segbatch.commands.progress import halo_sentence
from segbatch.commands.record import RunRecord
from segbatch.commands.scenes import describe
from segbatch.config import read_yaml
from segbatch.errors import InputError
from segbatch.inference.tally import tally_ledger
from segbatch.masks import read_cog_classes
from segbatch.masks.describe import describe_mask
from segbatch.models.card import CARD, read_card
from segbatch.scenes import SceneInfo
from segbatch.storage import place

Lines = list[tuple[str, str]]

_MOST_NOTES = 8


def inform(path: str) -> Lines:
    """(name, value) lines that say what there is at ``path``.

    Raises:
        InputError: Nothing that segbatch knows.
    """
    try:
        found = place(path)
        what = next((name for name in (CARD, "run.json", "zarr.json") if (found / name).is_file()), None)
    except (ValueError, OSError):  # a URL that only GDAL knows, or may read
        return _raster(path)
    if what == CARD:
        return _bundle(found)
    if what == "run.json":
        return _run(found)
    if what == "zarr.json":
        info, classes = describe_mask(found)
        names = ", ".join(classes.names) if classes else "not known"
        return [("what", "class mask (Zarr)"), *_scene(info)[1:], ("classes", names)]
    if found.is_dir():
        raise InputError(f"{path} is neither a run nor a bundle nor a class mask.")
    return _configuration(path) if found.suffix in (".yaml", ".yml") else _raster(path)


def _raster(path: str) -> Lines:
    lines, table = _scene(describe(path, None)), read_cog_classes(path)
    return [("what", "class mask"), *lines[1:], ("classes", ", ".join(table.names))] if table else lines


def _configuration(path: str) -> Lines:
    told = {key: str(value) for key, value in read_yaml(path).items() if key in ("name", "output")}
    next_step = f"segbatch plan {shlex.quote(path)} says what a run would do and cost"
    return [("what", "configuration"), *told.items(), ("next", next_step)]


def _scene(info: SceneInfo) -> Lines:
    names = ", ".join(name or f"band {number}" for number, name in enumerate(info.band_names, start=1))
    lines = [
        ("what", "scene"),
        ("size", f"{info.width} x {info.height} px ({info.width * info.height / 1e6:.1f} Mpx)"),
        ("bands", f"{len(info.band_names)} ({names}), {info.dtype}"),
    ]
    if info.alpha is not None:
        lines.append(("alpha", f"band {info.alpha} says which pixels are real"))
    lines.append(("nodata", "none" if info.nodata is None else f"{info.nodata:g}"))
    if info.crs is None:
        return [*lines, ("CRS", "none")]
    from rasterio.crs import CRS

    crs = CRS.from_wkt(info.crs)
    code = crs.to_authority()
    width, height = abs(info.transform.a), abs(info.transform.e)
    unit = crs.linear_units if crs.is_projected else "degree"
    return [
        *lines,
        ("CRS", ":".join(code) if code else crs.to_wkt()[:60]),
        ("pixel size", f"{width:g} x {height:g} {unit}"),
        ("upper left", f"{info.transform.c:.10g}, {info.transform.f:.10g}"),
    ]


def _bundle(folder: Path) -> Lines:
    card = read_card(folder)
    config = json.loads((folder / "config.json").read_text())
    lines = [
        ("what", "bundle"),
        ("network", f"{config.get('_model_class', '?')} with {config.get('encoder_name', '?')}"),
        ("classes", ", ".join(card.classes.names)),
        ("bands", f"{len(card.band_names)} ({', '.join(name or '-' for name in card.band_names)}), {card.dtype}"),
        ("mean", ", ".join(f"{value:.4g}" for value in card.mean)),
        ("std", ", ".join(f"{value:.4g}" for value in card.std)),
        ("stride", f"{card.stride} px"),
        (
            "halo",
            f"{card.halo} px, not measured"
            if card.halo_curve is None
            else halo_sentence(card.halo_curve.to_json(), card.halo),
        ),
    ]
    if card.training.get("miou") is not None:
        lines.append(("validation miou", f"{card.training['miou']:.4f} (epoch {card.training['epoch']})"))
    return lines


def _run(path: Path) -> Lines:
    folder = RunFolder(path)
    content = folder.read()
    training, mapping = content.get("training") or {}, content.get("mapping") or {}
    what = "evaluation" if content.get("evaluation") else "run"
    lines = [("what", what), ("name", str(content.get("name") or path.absolute().name))]
    if training:
        epochs = len(training.get("history", ()))
        lines.append(("training", _state(folder, training) + (f", {epochs} epochs" if epochs else "")))
    if tuned := content.get("tune"):
        found = tuned.get("best")
        best = f", {len(tuned['trials'])} trials, the best is trial {found['trial']}" if found else ""
        lines.append(("tuning", _state(folder, tuned) + best))
    if mapping:
        lines.append(("mapping", _state(folder, mapping)))
        lines += [("blocks", _blocks(folder))] if RunRecord.is_in(folder) else []
    lines += cost_facts(content["cost"]) if content.get("cost") else []
    lines += _schedule(Index.load(folder)) if Index.is_in(folder) else []
    metrics = folder.report / "metrics.json"
    if metrics.is_file():
        document = json.loads(metrics.read_text())
        if document["miou"] is not None:
            lines.append(("miou", f"{document['miou']:.4f}"))
        lines.append(("report", str(folder.report / "report.html")))
    return lines


def _state(folder: RunFolder, section: dict[str, Any]) -> str:
    """The state of a part of a run. run.json says that it is running also where its command was killed."""
    return look(folder).state if section["state"] == "running" else str(section["state"])


def _blocks(folder: RunFolder) -> str:
    record = RunRecord.load(folder)
    tallies = tally_ledger(folder.ledger, record.blocks, len(record.classes)).values()
    done, failed = sum(int(tally.done.sum()) for tally in tallies), sum(len(tally.errors) for tally in tallies)
    return f"{done} done" + (f", {failed} failed" if failed else "")


def _schedule(index: Index) -> Lines:
    """What a schedule has done there."""
    counts = Counter(scene.status for scene in index.scenes)
    lines = [("scenes", ", ".join(f"{count} {status}" for status, count in counts.items()) or "none yet")]
    lines += [(scene.status, f"{scene.id}: {scene.note}") for scene in index.scenes if scene.note][:_MOST_NOTES]
    last = index.runs[-1] if index.runs else None
    if last is not None:
        if last.ended is None:
            text = "goes on, or was killed"
        else:
            text = f"{last}; exit code {last.exit_code}" if last.exit_code in (0, 3) else f"exit code {last.exit_code}"
        lines.append(("latest run", f"{last.number}, {last.started}: {text}"))
    return lines
