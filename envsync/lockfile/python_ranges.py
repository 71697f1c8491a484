"""The Pythons that a project is for, in Poetry's and PDM's grammar of versions, as markers. Pure.

`^3.9` lets all through up to the next major version, `~3.9` those up to the next minor one, `||` stands between
alternatives, and a comma or a space between what has to hold together.
"""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from envsync.lockfile.records import Record

_PART = re.compile(r"(===|==|~=|!=|<>|<=|>=|<|>|\^|~|=)?\s*([0-9][^\s,|]*|\*)")


def alternatives(record: Record, key: str) -> list[str]:
    """Return the text of a marker for each alternative; empty for one that lets every Python through.

    :param key: of the text in the record
    :raises LockFileError: it makes no sense
    """
    return [_marker(record, key, text) for text in re.split(r"\|\|?", record.text(key))]


def _marker(record: Record, key: str, text: str) -> str:
    if _PART.sub("", text).strip(" ,"):
        raise record.refusal(f"`{text[:80]}` in `{key}` is no range of versions")
    specifiers = [each for match in _PART.finditer(text) for each in _pep440(match[1] or "", match[2])]
    try:
        parsed = SpecifierSet(",".join(specifiers))
    except InvalidSpecifier:
        raise record.refusal(f"`{text[:80]}` in `{key}` is no range of versions") from None
    return " and ".join(f'python_full_version {each.operator} "{each.version}"' for each in parsed)


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
