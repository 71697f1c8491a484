"""A requirements file and all that it includes, read line by line: what is required, and with which options.

Relative paths (`-r`, `-c`, `-f`, `-e .`, `./name-1.0-py3-none-any.whl`) are relative to the file that has them, so
that a file means the same wherever envsync is started.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import unquote

from envsync.errors import LockFileError, remedies
from envsync.launch import variables
from envsync.lockfile.blockers import Blocker
from envsync.lockfile.grammar import GrammarError, UnpinnedError, expand, logical_lines, parse
from envsync.lockfile.parsed import read_input
from envsync.lockfile.project_names import ProjectNames
from envsync.lockfile.reference import Reference
from envsync.lockfile.reference import parse as parse_reference
from envsync.lockfile.sources import MALFORMED_HINT, Sources, is_url, well_formed
from envsync.lockfile.wishes import OPPOSITE, Wishes
from envsync.system import paths

_PLACES = frozenset({"index-url", "extra-index-url", "find-links", "no-index", "trusted-host"})
"""Options that say where wheels come from, which decides what is installed where nothing has a hash."""
MOST_INCLUSIONS = 10_000
"""Of files, each as often as it is included."""


def gather(path: str) -> Inputs:
    """Read a requirements file and all that it includes.

    :raises LockFileError: one cannot be read
    """
    inputs = Inputs(path)
    # One that includes another is left where it is and gone on with later: there may be thousands, one in the other.
    open_files = [inputs.read(Inclusion(path, "", constraints=False, including=()))]
    count = 0
    while open_files:
        inclusion = next(open_files[-1], None)
        if inclusion is None:
            open_files.pop()
            continue
        count += 1
        if count > MOST_INCLUSIONS:
            hint = f"write them into one; {remedies.pin(path)}"
            raise LockFileError(path, f"it includes more than {MOST_INCLUSIONS} files", hint=hint)
        open_files.append(inputs.read(inclusion))
    return inputs


def blocker_of(path: str, where: str, error: GrammarError) -> Blocker:
    if isinstance(error, UnpinnedError):
        hint = error.hint or remedies.pin(path)
    elif error.build:
        hint = ""
    else:
        hint = f"{error.hint or 'correct the line'}; {remedies.show_line(where, path)}"
    return Blocker(f"{where}: {error.problem}", hint, error.build, LockFileError)


def _says_name(reference: Reference) -> bool:
    """Tell whether a requirement says its name itself: before an `@`, as a wheel's file name, or behind `#egg=`."""
    written = reference.own.requirement
    named = re.match(r"[\w.-]+\s*(\[[^\]]*\]\s*)?@", written) or "#egg=" in written or "&egg=" in written
    return bool(named) or reference.source is None


class Inclusion(NamedTuple):
    """A file to be read, and why."""

    path: str
    origin: str
    """What refers to it, as in "line 3: "."""
    constraints: bool
    including: tuple[str, ...]
    """The files that it is included by, absolute."""


class Surroundings:
    """What decides besides the files themselves: environment variables, where relative paths lead, what projects say.

    :ivar environ: as it was then, so that what is read is what the digest stands for
    :ivar has_relative_places: some paths are relative
    :ivar names: of projects
    """

    def __init__(self) -> None:
        self.environ = dict(os.environ)
        self.has_relative_places = False
        self.names = ProjectNames()
        self._deciding: set[str] = set()
        self._placing: set[str] = set()

    def note(self, line: str, *, places: bool = False) -> None:
        """Note the variables that a line names.

        :param places: it says only where wheels without a hash come from
        """
        (self._placing if places else self._deciding).update(variables.deciding(line))

    def variables(self, *, placing: bool) -> tuple[str, ...]:
        """Name the variables that decide what is installed.

        :param placing: with those that say where wheels come from
        """
        return tuple(sorted(self._deciding | self._placing if placing else self._deciding))


class Inputs:
    """What the files said, in the order of reading."""

    def __init__(self, path: str) -> None:
        self.lock_file = path
        self.contents: dict[str, bytes] = {}
        self.requirements: list[Reference] = []
        self.constraints: list[Reference] = []
        self.sources = Sources()
        self.require_hashes: bool | None = None
        """None if no option says."""
        self.wishes = Wishes()
        self.blockers: list[Blocker] = []
        """Lines that cannot be used."""
        self.surroundings = Surroundings()

    @property
    def references(self) -> list[Reference]:
        return [*self.requirements, *self.constraints]

    @property
    def needs_hashes(self) -> bool:
        """Whether all must have a hash: an option says so, or one has `--hash`, which is not said by one in a URL."""
        has_one = any(each.own.hashes for each in self.references)
        return has_one if self.require_hashes is None else self.require_hashes

    def read(self, inclusion: Inclusion) -> Iterator[Inclusion]:
        """Read a file. Yields what it includes, which has to be read before it is gone on with."""
        path, origin, _, including = inclusion
        absolute = paths.realpath(path)  # or a link to its own directory would make it another one each time
        if absolute in including:
            chain = " includes ".join(f"`{os.path.basename(each)}`" for each in (*including, absolute))
            raise LockFileError(self.lock_file, f"{origin}it includes itself: {chain}", hint=self._remove(origin))
        content = read_input(path, self.lock_file, origin)
        self.contents.setdefault(path, content)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problem = f"{origin}`{path}` is not UTF-8 (byte {error.start})"
            written = shlex.join(["iconv", "-f", "LATIN1", "-t", "UTF-8", path])
            hint = f"`{written} > {shlex.quote(path + '.utf-8.txt')}` writes it anew; look whether it is right"
            raise LockFileError(self.lock_file, problem, hint=hint) from error
        for number, line in logical_lines(text):
            where = f"line {number}" if path == self.lock_file else f"line {number} of `{path}`"
            try:
                yield from self._line(line, where, inclusion._replace(including=(*including, absolute)))
            except GrammarError as error:
                self.surroundings.note(line)
                self.blockers.append(blocker_of(self.lock_file, where, error))

    def _remove(self, origin: str) -> str:
        return f"remove one of the lines; {remedies.show_line(origin, self.lock_file)}"

    def _line(self, line: str, where: str, file: Inclusion) -> Iterator[Inclusion]:
        expanded = expand(line, self.surroundings.environ)
        parsed = parse(expanded)
        places = bool(parsed.options) and all(name in _PLACES for name, _ in parsed.options)
        self.surroundings.note(line, places=places)
        directory = os.path.dirname(file.path)
        for name, value in parsed.options:
            if name in ("requirement", "constraint"):
                if is_url(value):
                    raise GrammarError(
                        "an included file cannot be at a URL, for it may change",
                        "download it beside this one",
                    )
                included = paths.join(directory, value)
                yield Inclusion(included, f"{where}: ", name == "constraint", file.including)
            else:
                self._option(name, value, directory, where)
        if parsed.options:
            return
        reference = parse_reference(parsed, paths.abspath(directory), where, self.surroundings.names.of)
        place = reference.path or (reference.source.place if reference.source is not None else "")
        self.surroundings.has_relative_places |= bool(place) and unquote(place) not in unquote(expanded)
        if file.constraints:
            self._constrain(reference)
        else:
            self.requirements.append(reference)

    def _constrain(self, reference: Reference) -> None:
        """:raises GrammarError: it cannot be a constraint, as pip has it"""
        if reference.direct and not _says_name(reference):
            raise GrammarError("a constraint has to begin with a name", f"write `{reference.name} @ URL`")
        if reference.own.editable:
            raise GrammarError("a constraint cannot be editable", "write the requirement with -e instead")
        if reference.extras:
            raise GrammarError("a constraint cannot have extras", "write them where the package is required")
        self.constraints.append(reference)

    def _option(self, name: str, value: str, directory: str, where: str) -> None:
        sources = self.sources
        names_place = name.endswith(("url", "links"))
        if names_place and not well_formed(value):
            raise GrammarError(f"the URL of --{name} is malformed", MALFORMED_HINT)
        place = value if is_url(value) else paths.abspath(paths.join(directory, value))
        self.surroundings.has_relative_places |= names_place and place != value and not os.path.isabs(value)
        if name == "index-url":
            self.sources = replace(sources, index_urls=(place,))
        elif name == "extra-index-url":
            self.sources = replace(sources, extra_index_urls=(*sources.extra_index_urls, place))
        elif name == "find-links":
            self.sources = replace(sources, find_links=(*sources.find_links, place))
        elif name == "no-index":
            self.sources = replace(sources, no_index=True)
        elif name == "trusted-host":
            self.sources = replace(sources, trusted_hosts=(*sources.trusted_hosts, value))
        elif name == "require-hashes":
            self.require_hashes = True
        elif name == "no-require-hashes":
            self.require_hashes = False
        elif name in OPPOSITE or name == "pre":
            self.wishes.add("all-releases" if name == "pre" else name, value or ":all:", where)
        # What is left (--prefer-binary, --use-feature) changes nothing for wheels that are pinned.
