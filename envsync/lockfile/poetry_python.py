"""The Pythons that a Poetry project is for, in Poetry's own grammar of versions, as markers. Pure.

`^3.9` lets all through up to the next major version, `~3.9` those up to the next minor one, `||` stands between
alternatives, and a comma or a space between what has to hold together.
"""

from __future__ import annotations

import re

from packaging.markers import Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from envsync.lockfile.records import Record

_PART = re.compile(r"(===|==|~=|!=|<>|<=|>=|<|>|\^|~|=)?\s*([0-9][^\s,|]*|\*)")


def environments(metadata: Record) -> list[Marker] | None:
    """Return a marker for each alternative of `python-versions`; None if every Python is right.

    :raises LockFileError: it makes no sense
    """
    text = metadata.text("python-versions").strip()
    markers = []
    for alternative in re.split(r"\s*\|\|?\s*", text):
        specifiers = [
            each for operator, version in _parts(metadata, alternative) for each in _pep440(operator, version)
        ]
        try:
            parsed = [SpecifierSet(each) for each in specifiers]
        except InvalidSpecifier:
            raise _senseless(metadata, text) from None
        if not parsed:
            return None
        written = [f'python_full_version {each.operator} "{each.version}"' for some in parsed for each in some]
        markers.append(metadata.marker(" and ".join(written)))
    return markers


def _parts(metadata: Record, text: str) -> list[tuple[str, str]]:
    if _PART.sub("", text).strip(" ,"):
        raise _senseless(metadata, text)
    return [(match[1] or "", match[2]) for match in _PART.finditer(text)]


def _senseless(metadata: Record, text: str) -> Exception:
    return metadata.refusal(f"`{text[:80]}` in `python-versions` is no range of versions")


def _pep440(operator: str, version: str) -> list[str]:
    """Write one condition as PEP 440 has it; none if every version is right."""
    if version == "*":
        return []
    if operator == "^":
        return [f">={version}", f"<{_next(version, _significant(version))}"]
    if operator == "~":
        return [f">={version}", f"<{_next(version, 1)}"]
    return [{"": "==", "=": "==", "<>": "!="}.get(operator, operator) + version]


def _significant(version: str) -> int:
    """Return the position of the first number that is not 0; that is what `^` keeps."""
    release = _release(version)
    return next((position for position, number in enumerate(release) if number), len(release) - 1)


def _next(version: str, position: int) -> str:
    """Return the version after all those that agree up to a position."""
    release = _release(version)
    kept = release[: position + 1]
    return ".".join(map(str, (*kept[:-1], kept[-1] + 1)))


def _release(version: str) -> tuple[int, ...]:
    try:
        return Version(version).release
    except InvalidVersion as error:
        raise ValueError(f"`{version[:80]}` is no version") from error
