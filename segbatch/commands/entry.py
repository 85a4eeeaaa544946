"""How the command line is entered and left: options that may stand anywhere, errors in a line, exit codes."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from segbatch.errors import InputError, SegbatchError, is_full, root_message
from segbatch.inference.stop import leave
from segbatch.log import FORMATS, Format, say_error, speaking
from segbatch.redaction import redact

LOG_VARIABLE = "SEGBATCH_LOG"

_INTERRUPTED = 130
"""Exit code of what Ctrl-C or SIGTERM has stopped."""


def run_app(app: Callable[..., Any], arguments: Sequence[str]) -> None:
    """Run the command line and exit with its code.

    Args:
        app: Typer's.
        arguments: What the user has written after the program's name.
    """
    # --debug and --log may stand anywhere on the line: people add them at the end, after something went wrong.
    debug = "--debug" in arguments
    try:
        words, form = chosen_log([word for word in arguments if word != "--debug"], os.environ)
    except InputError as error:
        say_error(f"Error: {error}")
        sys.exit(error.exit_code)
    with speaking(form):
        _run(app, words, debug, form)


def chosen_log(words: Sequence[str], environment: Mapping[str, str]) -> tuple[list[str], Format]:
    """How standard error speaks, and the words without those that say so.

    Raises:
        InputError: There is no such format.
    """
    found, who = environment.get(LOG_VARIABLE) or "text", LOG_VARIABLE
    kept = []
    rest = iter(words)
    for word in rest:
        name, given, value = word.partition("=")
        if name == "--log":
            found, who = (value if given else next(rest, "")), "--log"
        else:
            kept.append(word)
    for form in FORMATS:
        if found == form:
            return kept, form
    raise InputError(f"{who} is {found!r}: choose {' or '.join(FORMATS)}.")


def _run(app: Callable[..., Any], arguments: Sequence[str], debug: bool, form: Format) -> None:
    try:
        app(args=arguments, prog_name="segbatch")
    except SystemExit as end:
        interrupted = isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt)  # typer's of Ctrl-C
        terminated = end.code == signal.SIGTERM  # Ray's of SIGTERM, while it starts
        if interrupted or terminated:
            how = ", without --overwrite," if "--overwrite" in arguments else ""
            say_error(f"\nStopped. Run the same command again{how} to go on.", "warning")
            leave(_INTERRUPTED)
        raise
    except SegbatchError as error:
        _show_traceback(debug, form)
        say_error(f"Error: {error}", **_trace(debug))
        leave(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        leave(1)
    except Exception as error:
        if is_full(error):
            _show_traceback(debug, form)
            where = f" for {error.filename}" if error.filename else ""
            say_error(f"Error: No space is left{where}: free some and run the same command again.", **_trace(debug))
        elif debug and form == "text":
            _show_traceback(debug, form)  # it ends with the error
        else:
            hint = "" if debug else "\nAdd --debug for the traceback."
            say_error(f"Error: {root_message(error)}{hint}", **_trace(debug))
        leave(1)


def _show_traceback(debug: bool, form: Format) -> None:
    """Written here, since Python would show the secrets of addresses in it."""
    if debug and form == "text":
        sys.stderr.write(redact(traceback.format_exc()))


def _trace(debug: bool) -> dict[str, Any]:
    return {"traceback": traceback.format_exc()} if debug else {}
