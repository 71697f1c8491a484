"""Decide where the files of a wheel go, by PyPA's `installer`.

`installer.install()` runs over the names in the archive and writes to a destination that only takes notes:
which member goes to which path of which scheme, and which entry points become scripts. Nothing is read but
WHEEL and entry_points.txt, and nothing is written. What `installer` would assert, warn about or stumble over
is refused or left out before it sees it:

- bundled `__pycache__` is left out: bytecode that nobody has checked against its source
- INSTALLER and REQUESTED are ours; a direct_url.json that came with a wheel says nothing true about this
  environment
- RECORD is left out: it is written anew; its signatures are kept, as by pip, for whoever wants to look at them
- a name that is both a console script and a gui script is the latter, as by pip: on Linux the two are alike
- a file in the scripts scheme that has the name of an entry point is left out, as by pip: the entry point
  replaces it
- the data scheme is the environment itself, so that it reaches into all others: what it puts there is judged, and
  compared with the rest of the wheel, by where it ends up; `lib64` is a link to `lib` in every environment
- names that differ by case or Unicode form only are taken down: some filesystems do not tell them apart
- what belongs to the environment (its configuration, its Python, the scripts that activate it) and to envsync is
  refused by any way
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import RecordEntry
from installer.sources import WheelSource

from envsync.errors import WheelError
from envsync.system import core, native
from envsync.wheel import record, twins
from envsync.wheel.archive import Member, check_path, find_collision, fold, printable
from envsync.wheel.manifest import Script

OURS: Mapping[str, bytes] = {"INSTALLER": b"envsync\n", "REQUESTED": b""}
"""Files that every installed distribution gets in its .dist-info."""

_SCHEMES = ("purelib", "platlib", "headers", "scripts", "data")
_DROPPED = frozenset({record.NAME, *OURS, "direct_url.json", "uv_cache.json"})
_CALLABLE = re.compile(r"[\w.]++\s*+:\s*+[\w.]++\s*+(?:\[[^][%]*+\]\s*+)?")  # never looks at a character twice
_DEEP = re.compile(rf"({native.DEEP})/.+", re.DOTALL)
"""Where the data scheme reaches into scripts and site-packages, in an environment of any version. It is compared with
folded paths: `BIN` is `bin` on some filesystems."""
_OURS = ".envsync"
_ENVIRONMENT = frozenset({".lock", "pyvenv.cfg", ".gitignore", "cachedir.tag"})
_DIRECTORIES = re.compile(native.OWN_DIRECTORIES)
_SCRIPTS = re.compile(native.OWN_SCRIPTS)
"""What the environment itself has: files at its top, directories, and files in `bin`; case does not count."""


class LaidFile(NamedTuple):
    """A file and where it goes."""

    scheme: str
    path: str
    """Below the scheme."""
    executable: bool
    source: Member | bytes


@dataclass(frozen=True, slots=True)
class WheelLayout:
    """Where everything goes.

    :param root: the scheme of the archive's root: `purelib` or `platlib`
    :param twins: files and directories that are one where case or Unicode form does not count
    """

    root: str
    places: tuple[LaidFile, ...]
    scripts: tuple[Script, ...]
    twins: tuple[twins.Pair, ...] = ()


def lay_out(
    wheel: str, members: Iterable[Member], dist_info: str, data: str | None, texts: Mapping[str, str]
) -> WheelLayout:
    """Decide where each member goes.

    :param wheel: its file name, for messages
    :param dist_info: the name of the .dist-info directory
    :param data: the name of the .data directory, if there is one
    :param texts: WHEEL and, if there is one, entry_points.txt
    :raises WheelError: there is no sound way to install this
    """
    members = tuple(members)
    for member in members:
        _check_data(wheel, member.name, data)
    entry_points = texts.get("entry_points.txt")
    if entry_points is not None:
        _check_entry_points(wheel, entry_points)
    notes = _Notes()
    try:
        install(_Source(members, dist_info, data, texts), notes, dict(OURS))
    except (InstallerError, ValueError, TypeError, AssertionError, configparser.Error) as error:
        _refuse(wheel, f"it cannot be laid out: {error}")
    scripts = _once(notes.scripts)
    taken = {script.name for script in scripts}
    places = tuple(place for place in notes.places if not (place.scheme == "scripts" and place.path in taken))
    return WheelLayout(notes.root, places, scripts, _check_places(wheel, places, scripts, dist_info))


def _once(scripts: Iterable[Script]) -> tuple[Script, ...]:
    """Keep one script of each name: of a console and a gui script the latter, which pip writes last."""
    kept: dict[str, Script] = {}
    for script in scripts:
        if kept.setdefault(script.name, script).section != "gui":
            kept[script.name] = script
    return tuple(kept.values())


class _Source(WheelSource):
    """The names in an archive, as `installer` wants to see them; what it takes for streams are our members."""

    def __init__(self, members: tuple[Member, ...], dist_info: str, data: str | None, texts: Mapping[str, str]) -> None:
        distribution, _, version = dist_info.removesuffix(".dist-info").partition("-")
        super().__init__(distribution, version)
        self._members = members
        self._dist_info = dist_info
        self._data = data
        self._texts = texts

    @property
    def dist_info_dir(self) -> str:
        return self._dist_info

    @property
    def data_dir(self) -> str:
        return self._data or super().data_dir

    @property
    def dist_info_filenames(self) -> list[str]:
        return list(self._texts)

    def read_dist_info(self, filename: str) -> str:
        return self._texts[filename]

    def get_contents(self) -> Iterator[tuple[tuple[str, str, str], BinaryIO, bool]]:
        for member in self._members:
            directory, _, name = member.name.rpartition("/")
            if "__pycache__" in directory.split("/") or (directory == self._dist_info and name in _DROPPED):
                continue
            yield (member.name, "", ""), cast(BinaryIO, member), member.executable


class _Notes(WheelDestination):
    """Takes down what `installer` would write."""

    def __init__(self) -> None:
        self.root = ""
        self.places: list[LaidFile] = []
        self.scripts: list[Script] = []

    def write_script(self, name: str, module: str, attr: str, section: str) -> RecordEntry:
        self.scripts.append(Script(name, module, attr, section))
        return RecordEntry(name, None, None)

    def write_file(self, scheme: str, path: Any, stream: BinaryIO, is_executable: bool) -> RecordEntry:
        source: Member | bytes = stream if isinstance(stream, Member) else stream.read()
        if scheme == "data" and path.startswith("lib64/"):
            path = "lib/" + path[len("lib64/") :]
        self.places.append(LaidFile(scheme, path, is_executable or scheme == "scripts", source))
        return RecordEntry(path, None, None)

    def finalize_installation(
        self,
        scheme: str,
        record_file_path: Any,  # noqa: ARG002
        records: Iterable[Any],  # noqa: ARG002
    ) -> None:
        self.root = scheme


def _check_data(wheel: str, name: str, data: str | None) -> None:
    if data is None or not name.startswith(data + "/"):
        return
    parts = name.split("/", 2)
    if len(parts) < 3:
        _refuse(wheel, f"`{name}` is in the .data directory but in no scheme")
    if parts[1] not in _SCHEMES:
        _refuse(wheel, f"`{name}` belongs to a scheme that does not exist")


def _check_places(
    wheel: str, places: Iterable[LaidFile], scripts: Iterable[Script], dist_info: str
) -> tuple[twins.Pair, ...]:
    """Refuse what would collide in an environment, where purelib and platlib are one directory, or do harm there.

    :returns: what is one on some filesystems only
    """
    final = [("scripts", script.filename) for script in scripts]
    final += [_final(place) for place in places]
    for root, path in final:
        top = path.partition("/")[0]
        if _is_reserved(root, fold(path)):
            _refuse(wheel, f"it wants to put `{path}` where the environment keeps its own files")
        if root == "library" and fold(top).endswith(".dist-info") and top != dist_info:
            _refuse(wheel, f"it has several .dist-info directories: `{dist_info}` and `{top}`")
    final += [
        ("library", f"{dist_info}/{name}") for name in (record.NAME, "direct_url.json", "uv_cache.json")
    ]  # will be written
    paths = [f"{root}/{path}" for root, path in final]
    problem = find_collision(paths)
    if problem is not None:
        _refuse(wheel, f"once installed, {problem}")
    return twins.find(paths)


def _final(place: LaidFile) -> tuple[str, str]:
    """Return the directory of the environment in which a file ends up, and its path there."""
    if place.scheme in ("purelib", "platlib"):
        return "library", place.path
    deep = _DEEP.fullmatch(fold(place.path)) if place.scheme == "data" else None
    if deep is not None:
        above = deep[1].count("/") + 1
        return "scripts" if deep[1] == core.BIN.lower() else "library", place.path.split("/", above)[above]
    return place.scheme, place.path


def _is_reserved(root: str, path: str) -> bool:
    """Tell whether a path belongs to envsync or to the environment itself, whatever is installed in it."""
    if _OURS in path and _OURS in path.split("/"):
        return True
    if root == "scripts":
        return _SCRIPTS.fullmatch(path.partition("/")[0]) is not None
    return root == "data" and (path.partition("/")[0] in _ENVIRONMENT or _DIRECTORIES.fullmatch(path) is not None)


def _check_entry_points(wheel: str, text: str) -> None:
    """Refuse what `installer` would answer with an assert, and names that are not those of files."""
    parser = configparser.ConfigParser(delimiters="=", interpolation=None)  # references can grow exponentially
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
        for section in ("console_scripts", "gui_scripts"):
            for name, value in parser.items(section) if parser.has_section(section) else ():
                if not _CALLABLE.fullmatch(value):
                    _refuse(wheel, f"entry point `{name} = {value}` in {section} does not name a function")
                if "/" in name or check_path(name) is not None:
                    _refuse(wheel, f"entry point `{name}` in {section} is not the name of a file")
                if any(character.isspace() for character in name):
                    _refuse(wheel, f"entry point `{name}` in {section} has a space in its name")  # as pip does
    except configparser.Error as error:
        problem = " ".join(str(error).split())
        _refuse(wheel, f"its entry_points.txt cannot be read: {problem}")


def _refuse(wheel: str, problem: str) -> NoReturn:
    raise WheelError(wheel, printable(problem))
