"""How a run stands, in words."""

from pathlib import Path
from typing import Any

from segbatch.commands.holder import Holder
from segbatch.commands.look import Status
from segbatch.commands.progress import about, counted, duration
from segbatch.commands.standing import MappingStanding, State, TrainingStanding

Lines = list[tuple[str, str]]

_MOST_REASONS = 5


def status_lines(found: Status) -> Lines:
    """Names and values, for people."""
    lines: Lines = [("run", found.name if found.name == Path(found.run).name else f"{found.name} ({found.run})")]
    state = f"{found.state}: {found.doing}" if found.doing and found.state == "running" else found.state
    held = None if found.holder is None else Holder(**found.holder)
    if found.state == "stopped":
        how = "nobody is at it" if held is None else f"{held} was killed"
        state += f": {how}; run the same command again to go on"
    lines.append(("state", state))
    if held is not None and found.is_held:
        lines.append(("by", str(held)))
    if found.tune:
        lines.append(("tuning", _tune_text(found.tune)))
    if found.training is not None:
        lines += _training_lines(found.training, found.training_state == "running" and found.is_held)
    if found.mapping is not None:
        lines += _mapping_lines(found.mapping, found.is_next, found.state, found.is_held)
    if found.at_work:
        lines.append(("at work", found.at_work))
    if found.age is not None and found.state != "done":
        lines.append(("latest news", f"{duration(found.age)} ago"))
    if found.schedule:
        lines.append(("schedule", _schedule_text(found.schedule)))
    if found.mapping is not None:
        reasons = found.mapping.reasons
        lines += [("failed", f"{scene}: {reason}") for scene, reason in reasons[:_MOST_REASONS]]
        if len(reasons) > _MOST_REASONS:
            lines.append(("failed", f"... and blocks of {len(reasons) - _MOST_REASONS} more scenes"))
    return lines


def _training_lines(training: TrainingStanding, is_running: bool) -> Lines:
    of = "" if training.epochs is None else f" of {training.epochs}"
    text = f"{training.done}{of} epochs"
    if is_running and training.step:
        text += f", step {training.step} of {training.steps} of the next"
    lines = [("training", text)]
    figures = []
    if training.loss is not None:
        figures.append(f"loss {training.loss:.3f}")
    if training.miou is not None:
        figures.append(f"miou {training.miou:.3f}")
    if training.best is not None:
        figures.append(f"best {training.best[1]:.3f} in epoch {training.best[0]}")
    if is_running and training.tiles_per_second:
        figures.append(f"{training.tiles_per_second:.1f} tiles/s")
    if is_running and training.seconds_left is not None:
        figures.append(f"{about(training.seconds_left)} left")
    return [*lines, ("", ", ".join(figures))] if figures else lines


def _mapping_lines(mapping: MappingStanding, is_next: bool, state: State, is_held: bool) -> Lines:
    share = (mapping.done + mapping.failed) / max(1, mapping.blocks)
    text = f"{mapping.done} of {mapping.blocks} done ({share:.0%})"
    if mapping.failed:
        text = f"{mapping.done} of {mapping.blocks} done, {mapping.failed} failed ({share:.0%})"
    lines = [("new blocks" if is_next else "blocks", f"{text}, {mapping.pixels / 1e6:.1f} Mpx")]
    if state == "running" and mapping.pixels_per_second is not None and mapping.seconds_left:
        speed = f"{mapping.pixels_per_second / 1e6:.2f} Mpx/s in the last minutes"
        lines.append(("speed", f"{speed}, {duration(mapping.seconds_left)} left"))
    words = {"at_work": "at work" if is_held else "begun", "waiting": "waiting" if is_held else "not begun"}
    counts = ", ".join(f"{count} {words.get(name, name)}" for name, count in mapping.scenes.items() if count)
    if sum(mapping.scenes.values()) > 1:
        lines.append(("new scenes" if is_next else "scenes", counts))
    else:
        lines.append(("scenes", counted(1, "scene")))
    return lines


def _tune_text(found: dict[str, Any]) -> str:
    of = f" of {found['trials']}" if found["trials"] else ""
    best = f", the best so far with miou {found['miou']:.3f}" if found["miou"] else ""
    return f"{found['state']}: {found['ended']}{of} trials ended, {found['begun']} begun{best}"


def _schedule_text(schedule: dict[str, Any]) -> str:
    scenes = ", ".join(f"{count} {status}" for status, count in schedule["scenes"].items()) or "no scene yet"
    last = schedule["latest_run"]
    if last is None:
        return scenes
    if last["ended"] is None:
        how = "is not over"
    elif last["exit_code"] in (0, 3):
        how = f"{last['text']}, exit code {last['exit_code']}"
    else:
        how = f"ended with exit code {last['exit_code']}, as what it has printed says"
    return f"{scenes}; run {last['number']} of {last['started']}: {how}"
