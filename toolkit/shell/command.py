"""How a command ends: with one line and an exit status, whatever went wrong.

A command is a `main(argv=None)` under `@command`. A mistake or a broken file is one line on stderr and status 2; Ctrl-C
is 130; a reader that has left (`| head`) ends it quietly. A traceback is a bug.
"""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress

from toolkit.errors import RankError, UserError
from toolkit.files.writing import STDOUT

PATIENCE = 5  # seconds


def command(main: Callable) -> Callable:
    """Run a command; errors become one line and exit status 2, Ctrl-C 130, a closed pipe ends it quietly."""

    @functools.wraps(main)
    def run(argv=None):
        if is_quiet():
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        for stream in filter(None, (sys.stdout, sys.stderr)):  # a stream may be closed
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        pressed = []

        def interrupt(*_):
            pressed.append(True)
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            main(argv)
        except BaseException as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if pressed:  # whatever an interrupted import or library made of it
                said = str(error) if isinstance(error, KeyboardInterrupt) else ""
                leave(130, said or "interrupted — files written so far are kept; run the same command to start again")
            status, message = explain(error)
            if isinstance(error, RankError):
                sys.stderr = sys.__stderr__
            elif is_quiet() and status:
                time.sleep(PATIENCE)  # mlx.launch ends all ranks with the first, which should be the one that speaks
            if status is None:
                raise
            leave(status, message)
        finally:
            signal.signal(signal.SIGINT, before)

    return run


def is_quiet() -> bool:
    """Whether this is one of several processes that mlx.launch or mpirun has started, and not the one that prints."""
    return any(os.environ.get(name, "0") != "0" for name in ("MLX_RANK", "OMPI_COMM_WORLD_RANK"))


def explain(error: BaseException) -> tuple[int | None, str]:
    """The exit status and the line for what ended a command; no status where it is a bug."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, BrokenPipeError):  # the reader has left: so do we, without a word
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141, ""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 2, f"error: {where}{error.strerror or error} — check the name, the rights and the space left"
    if isinstance(error, RuntimeError) and "peer" in str(error):
        return 2, "error: another rank was lost — --resume goes on from the last epoch that was finished"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc" in str(error)):
        return 2, "error: out of memory — try smaller numbers (batch size, image size, filters, samples)"
    return None, ""


def leave(status: int, message: str) -> None:
    """Print one line on stderr, if anything can still be printed there, and exit."""
    if message:
        with suppress(OSError):
            print(" ".join(message.splitlines()), file=sys.stderr)
    raise SystemExit(status) from None


def beside(path: str | None) -> AbstractContextManager:
    """While a result goes to standard output (`-`), all that is printed goes to stderr."""
    return redirect_stdout(sys.stderr) if path == STDOUT else nullcontext()
