"""Errors that people read: what is wrong, the offending value, what to do."""


class SegbatchError(Exception):
    """A failure whose message is meant for the user; the command line prints it without a traceback."""

    exit_code = 1


class InputError(SegbatchError):
    """Wrong usage or bad input, found before work began."""

    exit_code = 2


class SceneReadError(SegbatchError):
    """A scene (or its label) could not be read. The scene fails; the run goes on."""


class TrainingError(SegbatchError):
    """Training cannot go on."""
