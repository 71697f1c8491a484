"""State files that waiters read and write: flat JSON, one pair a line, without importing `json`.

Fifty waiters on two cores that each import `json` to say one line would cost the sync that they wait for 0.2 s.
Any JSON reader reads these files; this one reads what `dump` wrote, and asks `json` about anything else.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import os
else:
    import posix as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    Value = str | int | float | bool | None

FORMAT = 1


def dump(value: Mapping[str, Value]) -> bytes:
    """Write one object. The first pair is the format's version."""
    pairs = {"format": FORMAT, **value}
    lines = [f"{_quoted(key)}: {_literal(item)}" for key, item in pairs.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def load(path: str) -> dict[str, object]:
    """Read one object; empty if there is none, it is damaged, or of a newer format."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = os.read(fd, 1 << 20)
        finally:
            os.close(fd)
    except OSError:
        return {}
    value = parse(data)
    return value if value.get("format", FORMAT) == FORMAT else {}


def parse(data: bytes) -> dict[str, object]:
    """Parse one object; empty if it is damaged."""
    try:
        text = data.decode()
        return _plain(text)
    except (ValueError, ImportError):
        import json

        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


def text(value: Mapping[str, object], key: str) -> str:
    """Return a string of an object; the empty one if it is something else."""
    found = value.get(key)
    return found if isinstance(found, str) else ""


def number(value: Mapping[str, object], key: str, default: float = 0.0) -> float:
    """Return a number of an object; the default if it is something else."""
    found = value.get(key)
    return found if isinstance(found, (int, float)) and abs(found) < 1e18 else default  # neither inf nor nan


def _plain(text: str) -> dict[str, object]:
    from _json import scanstring

    lines = text.split("\n")
    if lines[0] != "{" or lines[-2:] != ["}", ""]:
        raise ValueError
    found: dict[str, object] = {}
    for line in lines[1:-2]:
        if not line.startswith('"'):
            raise ValueError
        key, end = scanstring(line, 1, True)
        if line[end : end + 2] != ": ":
            raise ValueError
        found[key] = _value(line[end + 2 :].removesuffix(","), scanstring)
    return found


def _value(literal: str, scanstring: object) -> object:
    assert callable(scanstring)
    if literal.startswith('"'):
        value, end = scanstring(literal, 1, True)
        if end != len(literal):
            raise ValueError
        return value
    if literal in _NAMES:
        return _NAMES[literal]
    return float(literal) if "." in literal or "e" in literal else int(literal)


_NAMES = {"null": None, "true": True, "false": False}


def _literal(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def _quoted(value: str) -> str:
    try:
        from _json import encode_basestring_ascii
    except ImportError:  # not CPython
        import json

        return json.dumps(value)
    return encode_basestring_ascii(value)
