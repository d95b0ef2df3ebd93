"""How a command ends: an error is one line on stderr and an exit code."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from ingest.errors import AttribError

__all__ = ["ends_in_one_line", "set_debug", "warn"]

P = ParamSpec("P")
R = TypeVar("R")

_FULL = {errno.ENOSPC, errno.EDQUOT}

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_debug = False


def set_debug(wanted: bool) -> None:
    """Whether tracebacks are shown."""
    global _debug
    _debug = wanted


def warn(text: str) -> None:
    """One line on stderr."""
    print(f"attrib: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201


def ends_in_one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors of a command into one line and an exit code (2 wrong call, 1 failed one)."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = command(*args, **kwargs)
            if sys.stdout is not None:
                sys.stdout.flush()  # what was printed may not fit on the disk that it goes to
            return result
        except typer.Exit:
            raise  # the command has said what there is to say
        except AttribError as exc:
            if _debug:
                raise
            warn(str(exc))
            raise typer.Exit(exc.exit_code) from exc
        except KeyboardInterrupt as exc:
            warn("stopped; the same command goes on where it stopped")
            raise typer.Exit(_INTERRUPTED) from exc
        except BrokenPipeError as exc:
            # The reader (head, less) went away; keep the interpreter from complaining at exit.
            sys.stdout = None
            raise typer.Exit(1) from exc
        except Exception as exc:
            if _debug:
                raise
            if isinstance(exc, OSError) and exc.errno in _FULL:
                where = f"write to {exc.filename}" if exc.filename else "write what it prints"
                sys.stdout = None  # what is left of it would be tried again at exit
                warn(f"cannot {where}: {exc.strerror}; free some space")
                raise typer.Exit(1) from exc
            warn(
                f"unexpected {type(exc).__name__}: {exc}; this is a fault of attrib: please report "
                "it with the output of the same command with --debug before its name"
            )
            raise typer.Exit(1) from exc

    return wrapped
