"""What people have, as rows: a table of measured times, or a profile of one of the tools."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tenfold.calibration.measured import FORWARD, Forward, Measured, read_measured
from tenfold.calibration.profiles import Profile, is_profile, read_profile
from tenfold.chips import Chip, names
from tenfold.errors import InputError


@dataclass(frozen=True, slots=True)
class Whole:
    """The model whose passes a profile holds, and how many where the profile does not say."""

    what: Forward
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """Rows, and what they were read from in words."""

    rows: tuple[Measured, ...]
    read_as: str
    left_out_s: float = 0.0


def read_given(text: str, chip: Chip, whole: Whole | None) -> Given:
    """The rows of a file: as ``read_measured`` or ``read_profile`` has them, and a row of a whole
    model where ``whole`` says which.

    Raises InputError where a profile gives no rows, is of another card than ``chip``, or where a
    table says by itself what ``whole`` would say.
    """
    if not is_profile(text):
        if whole is not None:
            raise InputError(
                "--model says which model a profile is of: a table of measured times has rows"
                f" '{FORWARD}' for that, so leave it out"
            )
        return Given(tuple(read_measured(text)), "a table")
    profile = read_profile(text)
    _check_card(profile, chip)
    rows = list(profile.operators)
    left_out_s = sum((profile.left_out or {}).values()) if rows else 0.0
    if whole is not None:
        rows.append(_pass(profile, whole))
    if not rows:
        raise InputError(
            f"a profile of {profile.tool} gives no shapes here: say which model it is of (--model,"
            " --batch, --dtype), and whole passes are read"
        )
    return Given(tuple(rows), f"a profile of {profile.tool}", left_out_s)


def _pass(profile: Profile, whole: Whole) -> Measured:
    source = f"{profile.tool}".lower().replace(" ", "-").replace(".", "-")
    seconds = profile.seconds_of_pass(whole.runs)
    return Measured(whole.what, seconds, source, f"{FORWARD} {whole.what.model}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _check_card(profile: Profile, chip: Chip) -> None:
    """Raises InputError where the profile names a card of the catalogue that is not ``chip``; a
    chip of the user's own may be called anything.
    """
    if not profile.device or chip.name not in names():
        return
    device = _plain(profile.device)
    fitting = [n for n in names() if _card(n) in device]
    longest = max((len(_card(n)) for n in fitting), default=0)
    named = [n for n in fitting if len(_card(n)) == longest]  # L40S holds L4, GB200 holds B200
    if named and chip.name not in named:
        raise InputError(
            f"the profile is of '{profile.device[:60]}', which is not {chip.name}: calibrate"
            f" {', '.join(named)}"
        )


def _card(name: str) -> str:
    """The part of a chip's name that its maker's name of the card has too."""
    first, *rest = name.split("-")
    return _plain(first + rest[0]) if first == "rtx" and rest else _plain(first)
