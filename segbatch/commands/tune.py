"""Look for better settings: many short trainings, of which the best model becomes the run's bundle."""

import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
from segbatch.commands.progress import counted, halo_sentence, say, tell_standstill
from segbatch.commands.scenes import open_role
from segbatch.commands.split import Labelled, check_tile, open_labelled, split_table
from segbatch.commands.train import (
    fingerprint,
    make_job,
    refuse_azure,
    spare_starting_weights,
    starting_weights,
    tell_classes,
    training_scenes,
    untrained_card,
)
from segbatch.commands.trials import Search, TrialLog, TrialProgress
from segbatch.commands.usage import held_on_ray, metered
from segbatch.config import LabelledSceneEntry, Range, RunConfig, Scenes, Training, Tune, draw, with_settings
from segbatch.errors import InputError, TrainingError
from segbatch.redaction import redact, redact_all
from segbatch.report.trials import TrialResult, trials_csv, trials_html
from segbatch.runtime import Resources, ray_session
from segbatch.storage import write_whole

if TYPE_CHECKING:
    from segbatch.training.survey import Survey
    from segbatch.training.trial import Trial

_TILE = "training.tile"
_LEAST_CPUS = 4
"""Of a worker of one of several trials at the same time: fewer would make each of them wait for its tiles."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Args:
        folder: Of the run.
        trials: Those that have begun, by number.
        best: The one whose model is the run's bundle.
    """

    folder: RunFolder
    trials: tuple[TrialResult, ...]
    best: TrialResult

    def command(self, config: Path, words: Sequence[str]) -> str:
        """The command line that repeats the best trial as a training.

        Args:
            config: The configuration of the search.
            words: ``key=value`` words that it was changed with.
        """
        own = [f"{key}={_yaml(value)}" for key, value in self.best.settings.items()]
        kept = [word for word in words if not word.startswith(("output=", "tune.", *self.best.settings))]
        sets = " ".join(f"--set {shlex.quote(word)}" for word in [*kept, *own, "output=DIR"])
        return f"segbatch train {shlex.quote(str(config))} {sets}"

    def lines(self, config: Path, words: Sequence[str]) -> list[tuple[str, str]]:
        """(name, value) lines for people; the arguments are those of ``command``."""
        failed = [("failed", f"trial {t.number}: {t.reason}") for t in self.trials if t.state == "failed"]
        return [
            *failed,
            ("best", f"trial {self.best.number}, miou {self.best.miou:.3f}, kept in {self.folder.bundle}"),
            ("map with it", f"segbatch run {shlex.quote(str(self.folder.tune / 'best.yaml'))}"),
            ("train it anew", self.command(config, words)),
            ("charts", str(self.folder.tune / "trials.html")),
        ]


def tune(config: RunConfig, overwrite: bool = False) -> Found:
    """Search as the configuration says.

    Running it again goes on where an earlier search stopped: trials that have ended are not run again.

    Raises:
        InputError: Bad input, or the run's folder holds something else.
        TrainingError: No trial came to a model.
    """
    folder = RunFolder.of(config.output)
    refuse_azure(folder)
    # A search grows and never shrinks: the best may be one of those that it has had.
    had = (folder.read().get("tune") or {}).get("drawn", 0)
    if not overwrite and had > config.tune.trials:
        config = config.model_copy(update={"tune": config.tune.model_copy(update={"trials": had})})
    if "space" not in config.tune.model_fields_set:
        config = _with_tiles_that_fit(config)
    points = draw(config)
    configs = [with_settings(config, settings) for settings in points]
    scenes = open_labelled(config, _extremes(config))
    _check(configs, scenes)
    _check_addresses(config, scenes)
    folder.create()
    with hold(folder):
        return _tune(config, folder, overwrite, points, configs, scenes)


def _tune(
    config: RunConfig,
    folder: RunFolder,
    overwrite: bool,
    points: Sequence[dict[str, Any]],
    configs: Sequence[RunConfig],
    scenes: Labelled,
) -> Found:
    identity = _identity(config, scenes)
    _claim(folder, identity, overwrite)
    if overwrite:
        for candidate in configs:
            spare_starting_weights(candidate.model, folder)
        folder.clear_training()
    folder.tune.mkdir(exist_ok=True)
    record = folder.read().get("tune") or {}
    folder.update(name=config.name, tune={**record, "fingerprint": identity, "state": "running", "drawn": len(points)})
    if config.training.mlflow:
        say("The trials are not logged to MLflow: training.mlflow counts for segbatch train.")
    log = TrialLog(folder.tune / "trials.jsonl")
    if all(trial.state == "failed" for trial in log.results(points)):
        log.forget_failures()
    search = Search(points, configs, log, folder.training.absolute(), record.get("best", {}).get("trial"))
    seconds = config.tune.hours * 3600 - log.clock if config.tune.hours else math.inf
    best = search.best()
    if best is not None and folder.bundle.exists() and (not search.pending or seconds <= 0) and search.has(best):
        say(f"{folder.tune} has {counted(len(search.results()), 'trial')}: the search is done already.")
    else:
        with ray_session(config.cluster.address) as resources, metered(folder, "tuning", held_on_ray):
            best = _search(folder, search, scenes, resources, seconds)
    return _conclude(folder, search, best, scenes, identity)


def _with_tiles_that_fit(config: RunConfig) -> RunConfig:
    """The space that is searched where the user names none, without tiles that are larger than all scenes."""
    parts = open_role(config, "train")
    side = max(min(part.window.width, part.window.height) for part in parts)
    space = dict(config.tune.space)
    tiles = [tile for tile in list(space.pop(_TILE)) if tile <= side]
    space |= {_TILE: tiles} if len(tiles) > 1 else {}
    return config.model_copy(update={"tune": config.tune.model_copy(update={"space": space})})


def _extremes(config: RunConfig) -> list[Training]:
    """Trainings among which are those with the largest tiles of the space.

    Of the space, not of the trials: more trials of the same search must not have other scenes.
    """
    space = config.tune.space
    keys = [key for key in (_TILE, "training.scale", "training.augment") if key in space]
    among = [values.ends if isinstance(values, Range) else values for values in (space[key] for key in keys)]
    return [with_settings(config, dict(zip(keys, values, strict=True))).training for values in product(*among)]


def _check(configs: Sequence[RunConfig], scenes: Labelled) -> None:
    """Find what cannot be before the first trial: tiles larger than all scenes, networks that cannot be built."""
    known = set()
    windows = [part.window for part in scenes["train"]]
    for config in configs:
        check_tile(config.training.tile, windows)
        model = config.model.model_dump_json()
        if model not in known:
            known.add(model)
            untrained_card(config, scenes["train"][0].info)


def _check_addresses(config: RunConfig, scenes: Labelled) -> None:
    """With a rule, what was found goes by the table of the split, which keeps no secrets.

    Raises:
        InputError: An address has one.
    """
    if config.scenes.split is None:
        return
    for part in [*scenes["train"], *scenes["validate"]]:
        if any(redact(address) != address for address in (part.ref.image, part.ref.label or "")):
            raise InputError(
                f"{redact(part.ref.image)} is read by an address with a password or signature, of which the table of "
                "the split would lose it: list scenes.validate instead of scenes.split, or give GDAL what it needs in "
                "its environment variables."
            )


def _identity(config: RunConfig, scenes: Labelled) -> str:
    """What decides the trials: not how many of them there are, nor how long they may take."""
    others = [
        with_settings(config, {key: value})
        for key in ("model.weights", "model.init")
        for value in config.tune.space.get(key, [])
    ]
    starting = [starting_weights(candidate.model, {}) for candidate in (config, *others)]
    search = config.tune.model_dump(mode="json", include={"space", "seed", "grace_epochs", "reduction_factor"})
    described = [fingerprint(config, scenes, starting), search]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def _claim(folder: RunFolder, identity: str, overwrite: bool) -> None:
    """Make sure that the folder is free or holds this very search."""
    content = folder.read()
    known = content.get("tune") or {}
    if not overwrite and known.get("fingerprint") != identity and (known or content.get("training")):
        what = "a search with other scenes or settings" if known else "a training"
        raise InputError(
            f"{folder.path} holds {what}. Choose another output folder, or give --overwrite to throw it and its "
            "masks away."
        )
    if folder.tune.exists() and not known:
        raise InputError(f"{folder.tune} is there already, and not of a search. Choose another output folder.")
    folder.refuse_foreign()


def _search(folder: RunFolder, search: Search, scenes: Labelled, resources: Resources, seconds: float) -> TrialResult:
    """Run what is left, and put the best model where the run's bundle goes."""
    from segbatch.training.search import Halving, finish, run_trials
    from segbatch.training.trainer import Workers

    settings, tuning = search.configs[0].training, search.configs[0].tune
    pending, count = search.pending, len(search.points)
    use_gpu = resources.wants_gpu(settings.use_gpu, settings.min_workers or settings.workers)
    concurrent = min(_concurrent(tuning, settings.workers, use_gpu, resources), max(1, len(pending)))
    cpus = resources.cpus_for(settings.workers * concurrent, use_gpu)
    least = settings.min_workers or settings.workers
    workers = Workers(settings.workers, least, cpus, use_gpu, settings.max_failures, resources.local)
    surveys: dict[int, Survey] = {}
    trials = [_trial(number, search, scenes, surveys, cpus) for number in pending]
    say(
        f"{counted(count, 'trial')} of up to {counted(settings.epochs, 'epoch')}"
        + (f", {count - len(pending)} of them done" if len(pending) < count else "")
        + f"; {concurrent} at a time, {counted(settings.workers, 'worker')} with "
        + ("a GPU each" if use_gpu else f"{counted(cpus, 'CPU')} each")
    )
    if trials:
        search.storage.mkdir(exist_ok=True)
        halving = Halving(settings.epochs, tuning.grace_epochs, tuning.reduction_factor)
        listener = TrialProgress(search, settings.epochs)
        run_trials(trials, search.log.epochs, halving, workers, concurrent, search.storage, listener, seconds)
    if search.pending:
        say(f"The time is up for {counted(len(search.pending), 'trial')}: a higher tune.hours goes on with them.")
    best = search.best()
    if best is None:
        raise TrainingError(_why_nothing(search.results()))
    if not (folder.bundle.exists() and search.has(best)):
        trial = _trial(best.number, search, scenes, surveys, cpus)
        finish(trial, len(best.history), workers, search.storage, folder.bundle.absolute(), _tell_halo)
    return best


def _why_nothing(trials: Sequence[TrialResult]) -> str:
    failed = next((trial for trial in trials if trial.state == "failed"), None)
    if failed is None:
        return "The time was up before a trial had an epoch behind it: raise tune.hours."
    return f"No trial came to a model. Trial {failed.number}: {failed.reason}"


def _concurrent(tuning: Tune, workers: int, use_gpu: bool, resources: Resources) -> int:
    if tuning.concurrent != "auto":
        return tuning.concurrent
    room = resources.gpus // workers if use_gpu else resources.cpus // (workers * _LEAST_CPUS)
    return max(1, room)


def _trial(number: int, search: Search, scenes: Labelled, surveys: "dict[int, Survey]", cpus: int) -> "Trial":
    """A trial, with the survey of the scenes that it shares with those of the same tile."""
    from segbatch.training.trainer import survey_scenes
    from segbatch.training.trial import Trial

    config = search.configs[number - 1]
    cell = config.training.tile // 2
    if cell not in surveys:
        train_scenes = training_scenes(config, scenes["train"])
        surveys[cell] = survey_scenes(train_scenes, cell, config.label_map(), search.storage, tell=tell_standstill)
        if len(surveys) == 1:
            tell_classes(config, surveys[cell])
    reported = sum(event["trial"] == number for event in search.log.epochs)
    return Trial(number, search.name(number), make_job(config, scenes, surveys[cell], cpus), reported)


def _tell_halo(event: dict[str, Any]) -> None:
    if event["kind"] == "halo":
        say(f"  {halo_sentence(event['curve'], event['halo'])}")


def _listed(scenes: Scenes, split: Path) -> Scenes:
    """Scenes for training and validation as a table says, in place of a rule."""
    tables = {role: [LabelledSceneEntry(table=str(split), where={"role": role})] for role in ("train", "validate")}
    return scenes.model_copy(update={"train": tables["train"], "validate_": tables["validate"], "split": None})


def _conclude(folder: RunFolder, search: Search, best: TrialResult, scenes: Labelled, identity: str) -> Found:
    """Write what was found: tables, page, the best's configuration, and the records that later commands go by."""
    config = search.configs[best.number - 1]
    write_whole(folder.split, split_table(config, scenes))
    if config.scenes.split is not None:
        # By the rule, the windows would depend on the best trial's tile; all trials had those of the search.
        config = config.model_copy(update={"scenes": _listed(config.scenes, folder.split.absolute())})
        scenes = open_labelled(config)
    starting = starting_weights(config.model, {})
    found = Found(folder, tuple(search.results()), best)
    write_whole(folder.tune / "trials.csv", trials_csv(found.trials).encode())
    write_whole(folder.tune / "trials.html", trials_html(config.name, found.trials).encode())
    dumped = config.model_dump(by_alias=True, mode="json")
    head = f"# {config.name} with the settings of trial {best.number}, the best that segbatch tune has found.\n"
    text = yaml.safe_dump(redact_all(dumped), sort_keys=False, allow_unicode=True)
    write_whole(folder.tune / "best.yaml", (head + text).encode())
    folder.update(
        config=dumped,
        # As if it had been trained with these settings, so that segbatch run and predict go on with it.
        training={
            "fingerprint": fingerprint(config, scenes, starting),
            "state": "done",
            "starting": starting,
            "seconds": round(best.seconds, 1),
            "history": json.loads((folder.bundle / "segbatch.json").read_text())["training"]["history"],
        },
        tune={
            "fingerprint": identity,
            "state": "done",
            "drawn": len(search.points),
            "seconds": max(event["clock"] for event in search.log.events),
            "best": {"trial": best.number, "miou": best.miou, "settings": best.settings},
            "trials": [
                {
                    "trial": trial.number,
                    "state": trial.state,
                    "reason": trial.reason,
                    "miou": trial.miou if trial.history else None,
                    "epochs": len(trial.history),
                    "settings": trial.settings,
                }
                for trial in found.trials
            ],
        },
    )
    # Not before: who is killed in between must find the best trial's checkpoints, or the bundle on record.
    search.prune(best.number)
    return found


def _yaml(value: Any) -> str:
    """A value as --set reads it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
