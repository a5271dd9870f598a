"""Files of the user, at the border: read whole or refused, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tenfold.errors import InputError

LARGEST_TEXT = 1 << 28  # bytes
BOM = b"\xef\xbb\xbf"  # what Windows puts before UTF-8


def read_text(path: str | Path, *, most: int = LARGEST_TEXT) -> str:
    """The text of a file in UTF-8, without a byte order mark. Raises InputError for what is no file
    (a pipe or a device never ends), is too large, or no text.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"cannot read {path}: it is no file")
        if status.st_size > most:
            raise InputError(
                f"cannot read {path}: {status.st_size:,} bytes are more than the {most:,} that are"
                " read"
            )
        return path.read_bytes().removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: not text") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', error)}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write a file beside its place and put it there when it is whole: whatever happens, there is
    the old one or the new one. Raises InputError.
    """
    write_whole(path, lambda to: to.write_text(text, encoding="utf-8", newline=""))


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """As ``write_text``, for a writer that takes a path. What is no file (a pipe, /dev/stdout) is
    written to as it is.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    try:
        if path.exists() and not path.is_file():
            write(path)
            return
        place = path.resolve()  # a link stays one
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        beside.chmod(stat.S_IMODE(place.stat().st_mode) if place.exists() else _usual_mode())
        beside.replace(place)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)


def plain(text: str) -> str:
    """Text as one line that leaves a terminal as it is: control characters become escapes."""
    words = " ".join(text.split())
    return "".join(c if _shown(c) else repr(c)[1:-1] for c in words)


def _shown(letter: str) -> bool:
    return unicodedata.category(letter) not in ("Cc", "Cs")


def check_printable(found: object) -> None:
    """Raises ValueError for a string, however deep in what a file says, that holds control
    characters: they would be orders to the terminal that shows it.
    """
    if isinstance(found, str):
        if not all(_shown(c) or c in "\t\n\r" for c in found):
            raise ValueError(f"{found[:60]!r} holds control characters")
    elif isinstance(found, Mapping):
        for key, value in found.items():
            check_printable(key)
            check_printable(value)
    elif isinstance(found, Sequence):
        for value in found:
            check_printable(value)


def _usual_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _place(path: Path) -> Path | None:
    """Where a file is or would be; None for what is no file and for what can be no path."""
    try:
        return None if path.exists() and not path.is_file() else path.resolve()
    except (OSError, ValueError):
        return None


def check_apart(inputs: dict[str, Path | None], outputs: dict[str, Path | None]) -> None:
    """Raises InputError where an output would replace an input or another output; by the names that
    the user gave them.
    """
    seen: dict[Path, str] = {}
    for named, writes in ((inputs, False), (outputs, True)):
        for what, path in named.items():
            place = _place(path) if path is not None else None
            if place is None:
                continue
            if writes and place in seen:
                raise InputError(
                    f"{what} and {seen[place]} are the same file, {path}: give it another name"
                )
            seen.setdefault(place, what)
