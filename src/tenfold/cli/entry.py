"""The way in: what becomes of streams, signals and faults."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

import typer

from tenfold.cli.common import app
from tenfold.errors import TenfoldError
from tenfold.files import plain

USAGE = 2  # what the user gave cannot be used
INTERNAL = 3  # a fault of Tenfold itself; 1 is "the answer is no"
INTERRUPTED = 130
# ClickException, of which typer carries a copy of its own
CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
_PLAIN = {
    "µ": "u", "…": "...", "─": "-", "█": "#", "░": ".", "–": "-", "✓": "ok", "≤": "<=",
}  # fmt: skip


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What a terminal of few letters gets for one that it has not."""
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c, "?") for c in letters), error.end


def _settle(stream: TextIO | None) -> None:
    """Let a stream in cp1252 or ASCII lose letters instead of the answer."""
    if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
        stream.reconfigure(errors="tenfold-plainly")


def _say(line: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"tenfold: {plain(line)}\n")


def main() -> None:
    """Run the command line; a fault that the user can mend is one line and exit 2, one of Tenfold
    itself one line and exit 3.
    """
    codecs.register_error("tenfold-plainly", _plainly)
    if sys.stdout is None:  # python closes it where the shell did
        _say("standard output is closed: nothing can be said on it")
        sys.exit(USAGE)
    _settle(sys.stdout)
    _settle(sys.stderr)
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except TenfoldError as error:
        _say(str(error))
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, for example `| head`
        _leave_stdout()
        return 0
    except OSError as error:
        _leave_stdout()
        _say(f"cannot write the answer: {error.strerror or error}")
        return USAGE
    except CLICK_ERROR as error:
        _say(_usage(error))
        return USAGE
    except Exception as error:
        if os.environ.get("TENFOLD_TRACEBACK"):
            raise
        _say(
            f"a fault of Tenfold itself, which is worth a report: {type(error).__name__}: {error}"
            " (TENFOLD_TRACEBACK=1 shows where)"
        )
        return INTERNAL
    return code if isinstance(code, int) else 0


def _usage(error: BaseException) -> str:
    """One line, with the command whose help says more."""
    context = getattr(error, "ctx", None)
    message = getattr(error, "format_message", lambda: str(error))()
    where = context.command_path if context is not None else "tenfold"
    return f"{message.rstrip('.')} (see {where} --help)"


def _leave_stdout() -> None:
    """What is left in the buffer cannot be written: python must not try again on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
