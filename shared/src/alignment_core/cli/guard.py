"""What escapes a command, in one line on stderr and an exit code.

0 good; 1 a fault of ours (and where the traceback is); 2 the user's mistake, not measurable, or steps left open;
3 measured and failed; 4 inconclusive; 130 interrupted.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer

from alignment_core.errors import UserError


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every error turned into one line and its exit code."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except UserError as error:
            say(f"error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("interrupted; the same command continues")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output went away (`... | head`); what is left in the buffer has nowhere to go.
            sys.stdout = None
            raise typer.Exit(0) from None
        except Exception as error:
            if kwargs.get("log_level") == "debug":
                raise
            say(f"error: internal error (please report): {type(error).__name__}: {error}; {_traceback(error)}")
            raise typer.Exit(1) from None

    return wrapper


def say(line: str) -> None:
    """One line on stderr, nothing in it obeyed by the terminal."""
    from alignment_core.text import visible

    typer.echo(visible(" ".join(line.split())), err=True)


def _traceback(error: Exception) -> str:
    """Where the traceback is: in the run's log, or in a new file when there is no run."""
    import tempfile
    import traceback

    from alignment_core.pipeline.logfile import TRACEBACK

    for note in getattr(error, "__notes__", ()):
        if note.startswith(TRACEBACK):
            return str(note)
    with tempfile.NamedTemporaryFile("w", prefix="alignment-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.writelines(traceback.format_exception(error))
    return f"{TRACEBACK} {file.name}"
