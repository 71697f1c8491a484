"""State files: one object a file, a pair a line in JSON, and a line that seals it. Read without importing `json`:

    {
    "format": 2,
    "host": "node1"
    }
    end 7d0a63a5c6ce3bd1b1ac5d5d5c7a4be5

Fifty waiters on two cores that each import `json` to say one line would cost the sync that they wait for 0.2 s. What
`dump` wrote of texts and numbers is read here; `json` is asked about anything else.

So is all written that says something of an environment or is remembered in the cache, but for what has to be read by
less than this, as the stamp and the names that `{digest}` stands for, and what versions of before go by: the journal,
how an environment is locked, manifests, and who links into the cache. Each says why.

One of format 1, which had no seal, is read as well. What a newer envsync has written counts as absent where it only
tells (who leads, who waits, what failed); where others go by it, it is refused (`envsync.installed.ledger`). What is
remembered in the cache, and what failed, is not replaced either.

So that every version tells what is newer from what is damaged, the number comes first and the seal last, in all formats
to come. A field that an older envsync must not overlook, or leave out when it writes the record anew, needs a new
number; all others may be missing, and are passed over by whoever does not know them.
"""

from __future__ import annotations

from envsync.launch.reading import content
from envsync.launch.stamp import seal, unseal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 2


def dump(value: Mapping[str, object]) -> bytes:
    """Write a record."""
    return seal(dump_object({"format": FORMAT, **value}))


def dump_object(value: Mapping[str, object]) -> bytes:
    """Write an object as in a record, without the seal."""
    lines = [f"{_quoted(key)}: {_literal(item)}" for key, item in value.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def load(path: str) -> dict[str, object]:
    """Read a record; empty if there is none, it is damaged, or of a newer format."""
    try:
        return understood(content(path))
    except OSError:
        return {}


def understood(data: bytes) -> dict[str, object]:
    """Parse a record; empty if it is damaged, or of a newer format."""
    value = parse(data)
    return value if value.get("format", 1) in (1, FORMAT) else {}


def is_newer(path: str) -> bool:
    """Tell whether a newer envsync has written a record: it is not ours to replace. A damaged one is."""
    try:
        return number(parse(content(path)), "format") > FORMAT
    except OSError:
        return False


def parse(data: bytes) -> dict[str, object]:
    """Parse a record, of whatever format; empty if it is damaged."""
    try:
        return parse_object(unseal(data))
    except ValueError:
        value = parse_object(data)
        return value if value.get("format", 1) == 1 else {}


def parse_object(data: bytes) -> dict[str, object]:
    """Parse an object without a seal; empty if it is damaged."""
    try:
        return _plain(data.decode())
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


def _literal(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (int, float)) else dense(value).decode()


def dense(value: object) -> bytes:
    """Write any value in one line of JSON without blanks."""
    import json

    return json.dumps(value, separators=(",", ":")).encode()


def _quoted(value: str) -> str:
    try:
        from _json import encode_basestring_ascii
    except ImportError:  # not CPython
        import json

        return json.dumps(value)
    return encode_basestring_ascii(value)
