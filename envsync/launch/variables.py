"""Environment variables in requirements files, `${NAME}`: where they are, and what stands for their values.

What a variable stands for decides what is installed, so it belongs to the digest. The stamp names the variables that a
file uses; of their values nothing is kept but what they add to the checksum that the digest is. User information in
URLs decides who may fetch, not what: it adds nothing, so a token that is another for each job changes no digest.

The fast lane uses this, where a stamp names a variable.
"""

from __future__ import annotations

from envsync.launch.stamp import checksum
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_ENDS_OF_AUTHORITY = "/?# \t'\""
_INCLUDING = ("-r", "-c", "--requirement", "--constraint")
_OF_INDEXES = ("UV_INDEX_", "POETRY_HTTP_BASIC_")
"""Variables by which tools let in who fetches."""
_MOST = 20
"""How many included files are looked into for a guess."""
_KIND, _REGULAR = 0o170000, 0o100000


def find(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield where each `${NAME}`, in capitals, begins and ends, and its name."""
    begin = text.find("${")
    while begin >= 0:
        end = text.find("}", begin)
        name = text[begin + 2 : end]
        if end >= 0 and name and NAME.issuperset(name):
            yield begin, end + 1, name
        begin = text.find("${", begin + 2)


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace each `${NAME}` by its value.

    :raises KeyError: it is not set
    """
    parts, position = [], 0
    for begin, end, name in find(text):
        parts += [text[position:begin], environ[name]]
        position = end
    return "".join(parts) + text[position:]


def deciding(line: str) -> set[str]:
    """Return the names in a line but for those that stand in the user information of a URL."""
    return {name for begin, end, name in find(line) if not _is_user_information(line, begin, end)}


def _is_user_information(line: str, begin: int, end: int) -> bool:
    before = line[:begin].rpartition("://")
    if not before[1] or any(c in before[2] for c in _ENDS_OF_AUTHORITY):
        return False
    after = line[end:]
    return "@" in after[: min((i for c in _ENDS_OF_AUTHORITY if (i := after.find(c)) >= 0), default=len(after))]


def without_user(text: str) -> str:
    """Leave out the user information of the URLs in a text."""
    first, *rest = text.split("://")
    parts = [first]
    for part in rest:
        end = min((i for c in _ENDS_OF_AUTHORITY if (i := part.find(c)) >= 0), default=len(part))
        parts.append(part[:end].rpartition("@")[2] + part[end:])
    return "://".join(parts)


def describe(names: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Return what the digest has of variables: for each its name and what stands for its value."""
    return [f"{name} {_stand_in(environ.get(name), whole=False)}" for name in sorted(names)]


def _stand_in(value: str | None, *, whole: bool) -> str:
    if value is None:
        return "unset"
    return checksum((value if whole else without_user(value)).encode("utf-8", "surrogateescape"))


def used_by(lock: str, environ: Mapping[str, str], read: Callable[[str], bytes]) -> list[str]:
    """Return what stands for all variables that a lock file seems to use, before anybody has parsed it.

    :param read: returns the content of a file (`envsync.launch.reading.content`)
    """
    names: set[str] = set()
    if lock.endswith(".lock"):
        names = {name for name in environ if name.startswith(_OF_INDEXES) and name.endswith(("_USERNAME", "_PASSWORD"))}
    elif not lock.endswith(".toml"):
        _gather(lock, environ, names, {lock}, read)
    return [f"{name} {_stand_in(environ.get(name), whole=True)}" for name in sorted(names)]


def _gather(
    path: str, environ: Mapping[str, str], names: set[str], seen: set[str], read: Callable[[str], bytes]
) -> None:
    for line in _lines(path, read):
        names.update(name for _, _, name in find(line))
        words = line.replace("=", " ").split()
        if len(words) < 2 or words[0] not in _INCLUDING or len(seen) > _MOST:
            continue
        try:
            included = expand(words[1].strip("\"'"), environ)
        except KeyError:
            continue
        beside = included if core.is_absolute(included) else path[: path.rfind("/") + 1] + included
        if beside not in seen:
            seen.add(beside)
            _gather(beside, environ, names, seen, read)


def _lines(path: str, read: Callable[[str], bytes]) -> list[str]:
    """Read a file; what is none, or cannot be read, has no lines: whoever parses it will say so."""
    try:
        if os.stat(path).st_mode & _KIND == _REGULAR:
            return read(path).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        pass
    return []
