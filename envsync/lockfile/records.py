"""Tables of other tools' files: each value is of the type that is meant, or the file is refused by name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar

from packaging.markers import InvalidMarker, Marker
from packaging.utils import InvalidName, NormalizedName, canonicalize_name
from packaging.version import InvalidVersion, Version

from envsync.errors import LockFileError, remedies

T = TypeVar("T")


class Record:
    """A table in a file.

    :param path: the file
    :param about: what begins each message, as in "package `foo`: "
    """

    def __init__(self, path: str, table: Mapping[str, Any], about: str = "") -> None:
        self.path = path
        self._table = table
        self.about = about

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def __iter__(self) -> Any:
        return iter(self._table)

    def is_text(self, key: str) -> bool:
        return isinstance(self._table.get(key), str)

    def text(self, key: str) -> str:
        """Return a string; empty if there is none.

        :raises LockFileError: it is something else; so for all methods here
        """
        return self._get(key, str, "a string", "")

    def flag(self, key: str, absent: bool = False) -> bool:
        return self._get(key, bool, "true or false", absent)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings; empty if there is none."""
        items = self._get(key, list, "a list", [])
        if not all(isinstance(item, str) for item in items):
            raise self.refusal(f"`{key}` has to be a list of strings")
        return tuple(items)

    def table(self, key: str, about: str = "") -> Record:
        """Return a table; an empty one if there is none."""
        return Record(self.path, self._get(key, dict, "a table", {}), self.about or about)

    def tables(self, key: str) -> list[Record]:
        """Return a list of tables; each is called a package by its name if it has one."""
        items = self._get(key, list, "a list", [])
        if not all(isinstance(item, dict) for item in items):
            raise self.refusal(f"`{key}` has to be a list of tables")
        return [Record(self.path, item, self.about or f"package `{str(item.get('name'))[:80]}`: ") for item in items]

    def name(self, key: str = "name") -> NormalizedName:
        """Return the name of a package, normalized."""
        return self.normalized(self.text(key))

    def normalized(self, name: str) -> NormalizedName:
        """Normalize the name of a package."""
        try:
            return canonicalize_name(name, validate=True)
        except InvalidName:
            raise self.refusal(f"`{name[:80]}` is no name of a package") from None

    def version(self, key: str = "version") -> Version:
        try:
            return Version(self.text(key))
        except InvalidVersion:
            raise self.refusal(f"`{self.text(key)[:80]}` is no version") from None

    def marker(self, text: str) -> Marker:
        """Parse a marker of this table."""
        try:
            return Marker(text)
        except InvalidMarker as error:
            raise self.refusal(f"it has a malformed marker: {str(error).splitlines()[0]}") from None

    def refusal(self, problem: str) -> LockFileError:
        """Return the error that says what is wrong with this table."""
        return LockFileError(self.path, self.about + problem)

    def _get(self, key: str, kind: type[T], called: str, absent: T) -> T:
        value = self._table.get(key, absent)
        if not isinstance(value, kind):
            raise self.refusal(f"`{key}` has to be {called}")
        return value


def of_toml(path: str, content: bytes) -> Record:
    """Parse a TOML file.

    :raises LockFileError: it is none
    """
    return Record(path, toml(path, content))


def of_json(path: str, content: bytes) -> Record:
    """Parse a JSON file that holds a table.

    :raises LockFileError: it is none
    """
    relock = remedies.relock(path)
    try:
        table = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LockFileError(path, f"it is not JSON: {error}", hint=relock) from None
    if not isinstance(table, dict):
        raise LockFileError(path, "it is JSON, but no table", hint=relock)
    return Record(path, table)


def toml(path: str, content: bytes) -> dict[str, Any]:
    """Parse a TOML file to what it holds.

    :raises LockFileError: it is none
    """
    relock = remedies.relock(path)
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise LockFileError(path, f"it is not UTF-8 (byte {error.start})", hint=relock) from error
    except tomllib.TOMLDecodeError as error:
        raise LockFileError(path, f"it is not TOML: {error}", hint=relock) from error
