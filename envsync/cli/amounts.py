"""Ages and sizes, as people type and read them."""

from __future__ import annotations

import re
from typing import NoReturn

from envsync.errors import UsageError

_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmgt]?)(i?)b?", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_age(text: str, option: str = "--older-than") -> float:
    """Return seconds. A unit is asked for: who types 30 hardly means half a minute.

    :raises UsageError: it is not a number with s, m, h, d or w behind it, nor 0
    """
    match = _AGE.fullmatch(text.strip().lower())
    if match is None or (not match[2] and float(match[1])):
        refuse(option, text, "an age such as 30d, 12h or 90m")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Return bytes: k, M, G and T are powers of 1000, with an i behind them of 1024.

    :raises UsageError: it is not a number with such a letter behind it
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]) or len(match[1]) > 30:
        refuse("--max-size", text, "a size such as 500M, 10G or 10GiB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])


def since(seconds: float, *, days: bool = False) -> str:
    """Write how long ago something was, as in `12 d`.

    :param days: it is not known more closely
    """
    if seconds < 86400 and days:
        return "<1 d"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 and not days else f"{seconds / 86400:.0f} d"


def refuse(option: str, text: str, wanted: str) -> NoReturn:
    """Say that the value of an option is not what it takes."""
    raise UsageError(f"option `{option}`: `{text}` is not {wanted}")
