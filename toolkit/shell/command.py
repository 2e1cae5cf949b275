"""What all commands share: printing, errors and exit status.

A command is a `main(argv=None)` under `@command`. A mistake or a broken file is one line on stderr and status 2; Ctrl-C
is 130; a closed pipe (`| head`) ends it quietly. A traceback is a bug. On a terminal long lines break at spaces,
`Warning:` and `error:` are coloured, and long work shows its progress.
"""

import functools
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

import toolkit
from toolkit.errors import RankError, UserError
from toolkit.files import progress
from toolkit.files.writing import STDOUT
from toolkit.machine.process import LOST, PATIENCE, launched_as, watched
from toolkit.wording import visible, wrapped

LEAST_MEMORY = 2**29  # bytes of address space
RESUME = "--resume continues a training after its last complete epoch"
AWAKE = "caffeinate -s keeps it running while the display sleeps"
COLOURS = {"Warning:": 33, "error:": 31}  # of the first word of a line on a terminal: yellow and red


def command(main: Callable) -> Callable:
    """Decorator: errors become one line and status 2, Ctrl-C 130; a closed pipe ends the command silently."""

    @functools.wraps(main)
    def run(argv=None):
        open_streams()
        nowhere = open(os.devnull, "w") if launched_as() else None  # noqa: SIM115  (rank 0 prints)
        pressed = []

        def interrupt(*_):
            pressed.append(True)
            if not is_handled(KeyboardInterrupt):  # a second one would interrupt the clean-up after the first
                raise KeyboardInterrupt

        before, hook = signal.getsignal(signal.SIGINT), sys.unraisablehook
        ended = signal.getsignal(signal.SIGTERM)
        with redirect_stdout(Visible(nowhere or sys.stdout)), redirect_stderr(Visible(nowhere or sys.stderr)):
            try:
                signal.signal(signal.SIGINT, interrupt)
                sys.unraisablehook = press_again
                if 0 <= resource.getrlimit(resource.RLIMIT_AS)[0] < LEAST_MEMORY:  # OpenBLAS would end the process
                    raise UserError(f"ulimit -v allows less than {LEAST_MEMORY >> 20} MiB of memory — raise it")
                with watched(), progress.bar(None, "Working"):
                    main(argv)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            except BaseException as error:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                if nowhere:
                    if not isinstance(error, RankError) and getattr(error, "code", 1):
                        time.sleep(PATIENCE)  # the first rank to end should print its error: mlx.launch then ends all
                    sys.stderr = Visible(sys.__stderr__)
                if pressed:  # whichever exception an interrupted library raised
                    said = str(error) if isinstance(error, KeyboardInterrupt) else ""
                    restart = "interrupted — files written so far are kept; run the same command to start again"
                    leave(130, said or restart)
                status, message = explain(error)
                if status is None:
                    raise
                leave(status, message)
            finally:
                signal.signal(signal.SIGTERM, ended)
                sys.unraisablehook = hook
                if before is not toolkit.interrupted:  # a caller within Python continues
                    signal.signal(signal.SIGINT, before)

    return run


def is_handled(kind: type[BaseException]) -> bool:
    """Whether an exception of this type is currently being handled, here or in a caller."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None


def press_again(lost: Any) -> None:
    """Raise Ctrl-C again if Python dropped it because an object was being deleted."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        threading.Thread(target=press, args=[threading.main_thread().ident], daemon=True).start()
    else:
        sys.__unraisablehook__(lost)


def press(main: int) -> None:
    """Press Ctrl-C when the main thread has left `press_again`, which would drop it once more."""
    time.sleep(0.01)
    frame = sys._current_frames().get(main)
    while frame and frame.f_code is not press_again.__code__:
        frame = frame.f_back
    press(main) if frame else signal.pthread_kill(main, signal.SIGINT)


def open_streams() -> None:
    """Make all streams print any character, line by line, and discard output to closed ones (`>&-`): otherwise the next
    file to be opened would take that descriptor and receive what a library prints."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)


class Visible:
    """A stream that escapes control characters in foreign text (names, keys, messages of servers).

    On a terminal it prints whole lines, wraps them, and colours the first word of warnings and errors.
    """

    def __init__(self, stream: TextIO):
        self.plain, self.line = stream, ""
        self.is_terminal = progress.is_terminal(stream)
        self.has_colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def write(self, text: str) -> int:
        if not self.is_terminal:
            return self.plain.write(visible(text))
        self.line += visible(text)
        if self.line.endswith("\n"):
            self.flush()
        return len(text)

    def flush(self) -> None:
        text, self.line = self.line, ""
        with progress.lock:
            if text:
                progress.erase()
                word = text.partition(" ")[0]
                text = wrapped(text, progress.columns(self.plain))
                if word in COLOURS and self.has_colour:
                    text = f"\x1b[1;{COLOURS[word]}m{word}\x1b[0m{text.removeprefix(word)}"
                self.plain.write(text)
            self.plain.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


def explain(error: BaseException) -> tuple[int | None, str]:
    """The exit status and message for an exception; no status if it is a bug."""
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, BrokenPipeError):  # exit silently
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141, ""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return 2, f"error: {where}{error.strerror or error} — check the name, permissions and free space"
    if isinstance(error, RuntimeError) and "peer" in str(error):
        return 2, f"error: {LOST}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("toolkit"):
        return 2, f"error: {error.name} is not installed — activate the environment, or pip install -r requirements.txt"
    text = str(error) if isinstance(error, RuntimeError) else ""  # as MLX reports failures of a device
    if isinstance(error, MemoryError) or any(
        sign in text for sign in ("alloc", "out of memory", "Insufficient Memory")
    ):
        return 2, f"error: out of memory — try smaller numbers (batch size, image size, filters, samples); {RESUME}"
    if "Command buffer execution failed" in text or "CUDA" in text or "cuda" in text:
        why, more = text.rpartition("failed: ")[2].partition(" (")[0], f"; {AWAKE}" if "METAL" in text else ""
        return 2, f"error: the GPU failed ({why}) — try a smaller --batchsize; {RESUME}{more}"
    return None, ""


def leave(status: int, message: str) -> None:
    """Print one line on stderr, if possible, and exit."""
    if message:
        with suppress(OSError):
            print(" ".join(message.splitlines()), file=sys.stderr)
    raise SystemExit(status) from None


def beside(path: str | None) -> AbstractContextManager:
    """If the result goes to standard output (`-`), redirect all messages to stderr."""
    return redirect_stdout(sys.stderr) if path == STDOUT else nullcontext()
