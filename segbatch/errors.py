"""Errors that people read: what is wrong, the offending value, what to do."""

import errno
from typing import TypeGuard

from segbatch.redaction import redact


class SegbatchError(Exception):
    """A failure whose message is meant for the user; the command line prints it without a traceback.

    Args:
        message: Kept without secrets of addresses: Ray hands errors on, and logs them, as text.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class InputError(SegbatchError):
    """Wrong usage or bad input, found before work began."""

    exit_code = 2


class FolderInUseError(InputError):
    """Another command writes the run's folder."""


class SceneReadError(SegbatchError):
    """A scene (or its label) could not be read. The scene fails; the run goes on."""


class TrainingError(SegbatchError):
    """Training cannot go on."""


def explain(error: Exception, what: str) -> str:
    """An error in a line: segbatch's own say all themselves, others only after ``what`` could not be done."""
    return str(error) if isinstance(error, SegbatchError) else f"{what}: {root_message(error)}"


def is_full(error: BaseException) -> TypeGuard[OSError]:
    """Whether a disk is full, or a share of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def root_message(error: BaseException) -> str:
    """The line that says what went wrong.

    Ray hands the errors of its workers on as text, tracebacks and all; in such a text it is the last line that
    begins with the name of an error of segbatch, or else the last line.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    own = [line.partition(": ")[2] for line in lines if line.startswith("segbatch.errors.")]
    if own:
        return own[-1]
    remote = any(line.startswith("Traceback ") for line in lines) or "ray::" in str(error)
    last = lines[-1 if remote else 0] if lines else ""
    return last if remote and last else f"{type(error).__name__}: {last}".removesuffix(": ")
