"""What people have, as rows: a table of measured times, or a profile of one of the tools."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import assert_never

from tenfold.calibration.measured import FORWARD, Forward, Measured, read_measured
from tenfold.calibration.profiles import Profile, Tool, is_profile, read_profile
from tenfold.chips import Chip, names
from tenfold.errors import InputError
from tenfold.machine import Stack


@dataclass(frozen=True, slots=True)
class ProfiledModel:
    """The model whose passes a profile holds, and how many where the profile does not say.

    A ``dtype`` of None is that of the profile's operators, or fp16; a ``stack`` of None the engine
    that wrote it.
    """

    model: str
    batch: int = 1
    seq: int | None = None
    dtype: str | None = None
    stack: Stack | None = None
    runs: int | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """Rows, and what they were read from in words."""

    rows: tuple[Measured, ...]
    read_as: str
    left_out_s: float = 0.0


def read_given(text: str, chip: Chip, whole: ProfiledModel | None) -> Given:
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
        _check_tool(profile, chip, whole)
        rows.append(_pass(profile, whole))
    if not rows:
        raise InputError(
            f"a profile of {profile.tool} gives no shapes here: say which model it is of (--model,"
            " --batch, --dtype), and whole passes are read"
        )
    return Given(tuple(rows), f"a profile of {profile.tool}", left_out_s)


def _pass(profile: Profile, whole: ProfiledModel) -> Measured:
    source = f"{profile.tool}".lower().replace(" ", "-").replace(".", "-")
    found = {m.what.dtype for m in profile.operators}
    if found and whole.dtype is not None and whole.dtype not in found:
        raise InputError(
            f"--dtype {whole.dtype}: the operators of the profile are in {', '.join(sorted(found))}"
        )
    if len(found) > 1 and whole.dtype is None:
        raise InputError(
            f"the operators of the profile are in {', '.join(sorted(found))}: say with --dtype what"
            " the model computes in"
        )
    what = Forward(
        model=whole.model,
        batch=whole.batch,
        seq=whole.seq,
        dtype=whole.dtype or next(iter(found), "fp16"),
        stack=whole.stack or Stack.ENGINE,
    )
    return Measured(what, profile.seconds_of_pass(whole.runs), source, f"{FORWARD} {what.model}")


def _check_tool(profile: Profile, chip: Chip, whole: ProfiledModel) -> None:
    """Raises InputError for a stack that the tool does not profile, or left open where it may be
    any, and for a maker whose chips it does not run on.
    """
    match profile.tool:
        case Tool.TORCH:
            if whole.stack is None:
                raise InputError(
                    "a trace of torch.profiler is of PyTorch: say --stack eager or compiled"
                )
        case Tool.TRTEXEC | Tool.ONNXRUNTIME:
            if whole.stack not in (None, Stack.ENGINE):
                raise InputError(
                    f"a profile of {profile.tool} is of an engine: leave --stack {whole.stack} out"
                )
        case Tool.NSIGHT:
            pass
        case _:
            assert_never(profile.tool)
    if profile.tool in (Tool.TRTEXEC, Tool.NSIGHT) and chip.organisation != NVIDIA:
        raise InputError(f"{profile.tool} runs on {NVIDIA}'s cards, and {chip.name} is none")


NVIDIA = "NVIDIA"


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
