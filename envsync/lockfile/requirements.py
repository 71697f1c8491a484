"""Pinned requirements files: read with all that they include, then select what applies to one interpreter.

Relative paths (`-r`, `-c`, `-f`, `./name-1.0-py3-none-any.whl`) are relative to the file that has them, so
that a file means the same wherever envsync is started.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.version import InvalidVersion, Version

from envsync.errors import LockFileError, remedies
from envsync.launch import variables
from envsync.lockfile import wheels
from envsync.lockfile.blockers import Blocker, refusal
from envsync.lockfile.choice import Choice
from envsync.lockfile.grammar import GrammarError, UnpinnedError, expand, logical_lines, parse
from envsync.lockfile.parsed import known_to_nobody, read_input, refuse_members, understanding
from envsync.lockfile.reference import Reference, constrained
from envsync.lockfile.reference import parse as parse_reference
from envsync.lockfile.resolve import direct, resolve
from envsync.lockfile.sources import (
    MALFORMED_HINT,
    Sources,
    is_url,
    well_formed,
)
from envsync.lockfile.target import Target
from envsync.lockfile.wishes import OPPOSITE, Wishes
from envsync.python.facts import Interpreter

_PLACES = frozenset({"index-url", "extra-index-url", "find-links", "no-index", "trusted-host"})
"""Options that say where wheels come from, which decides what is installed where nothing has a hash."""
MOST_INCLUSIONS = 10_000
"""Of files, each as often as it is included."""


def read(path: str) -> RequirementsFile:
    """Read a requirements file and all that it includes.

    :raises LockFileError: one cannot be read, or a line cannot be used; the message names file and line
    """
    inputs = _Inputs(path)
    # One that includes another is left where it is and gone on with later: there may be thousands, one in the other.
    open_files = [inputs.read(_Inclusion(path, "", constraints=False, including=()))]
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
    if inputs.blockers:
        raise refusal(path, [*inputs.blockers, *_unpinned(inputs)])
    return RequirementsFile(path, inputs)


def _unpinned(inputs: _Inputs) -> Iterator[Blocker]:
    """Find what is not pinned, or contradicts itself, whatever the interpreter: it is said with what else is wrong."""
    for each in inputs.requirements:
        if each.marker is None:
            try:
                constrained(each, (c for c in inputs.constraints if c.name == each.name and c.marker is None))
            except GrammarError as error:
                yield _blocker(inputs.lock_file, each.where, error)


def _blocker(path: str, where: str, error: GrammarError) -> Blocker:
    if isinstance(error, UnpinnedError):
        hint = remedies.pin(path)
    elif error.build:
        hint = ""
    else:
        hint = f"{error.hint or 'correct the line'}; {remedies.show_line(where, path)}"
    return Blocker(f"{where}: {error.problem}", hint, error.build, LockFileError)


def _is_prerelease(version: str) -> bool:
    try:
        return Version(version).is_prerelease
    except InvalidVersion:  # `===` takes anything
        return False


class _Inclusion(NamedTuple):
    """A file to be read, and why."""

    path: str
    origin: str
    """What refers to it, as in "line 3: "."""
    constraints: bool
    including: tuple[str, ...]
    """The files that it is included by, absolute."""


class _Variables:
    """The environment variables that lines name.

    :ivar environ: as it was then, so that what is read is what the digest stands for
    """

    def __init__(self) -> None:
        self.environ = dict(os.environ)
        self._deciding: set[str] = set()
        self._placing: set[str] = set()

    def note(self, line: str, *, places: bool = False) -> None:
        """Note those that a line names.

        :param places: it says only where wheels without a hash come from
        """
        (self._placing if places else self._deciding).update(variables.deciding(line))

    def names(self, *, placing: bool) -> tuple[str, ...]:
        """Name those that decide what is installed.

        :param placing: with those that say where wheels come from
        """
        return tuple(sorted(self._deciding | self._placing if placing else self._deciding))


class _Inputs:
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
        self.variables = _Variables()
        self.has_relative_places = False

    @property
    def references(self) -> list[Reference]:
        return [*self.requirements, *self.constraints]

    @property
    def needs_hashes(self) -> bool:
        """Whether all must have a hash: since an option says so, or one has."""
        has_one = any(each.hashes for each in self.references)
        return has_one if self.require_hashes is None else self.require_hashes

    def read(self, inclusion: _Inclusion) -> Iterator[_Inclusion]:
        """Read a file. Yields what it includes, which has to be read before it is gone on with."""
        path, origin, _, including = inclusion
        absolute = os.path.realpath(path)  # or a link to its own directory would make it another one each time
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
                self.variables.note(line)
                self.blockers.append(_blocker(self.lock_file, where, error))

    def _remove(self, origin: str) -> str:
        return f"remove one of the lines; {remedies.show_line(origin, self.lock_file)}"

    def _line(self, line: str, where: str, file: _Inclusion) -> Iterator[_Inclusion]:
        expanded = expand(line, self.variables.environ)
        parsed = parse(expanded)
        places = bool(parsed.options) and all(name in _PLACES for name, _ in parsed.options)
        self.variables.note(line, places=places)
        directory = os.path.dirname(file.path)
        for name, value in parsed.options:
            if name in ("requirement", "constraint"):
                if is_url(value):
                    raise GrammarError(
                        "an included file cannot be at a URL, for it may change",
                        "download it beside this one",
                    )
                included = os.path.join(directory, value)
                yield _Inclusion(included, f"{where}: ", name == "constraint", file.including)
            else:
                self._option(name, value, directory, where)
        if parsed.options:
            return
        reference = parse_reference(parsed, os.path.abspath(directory), where)
        self.has_relative_places |= reference.path is not None and reference.path not in expanded
        if not file.constraints:
            self.requirements.append(reference)
        elif reference.direct:
            raise GrammarError("a constraint cannot be a URL or path", "pin its version instead")
        else:
            self.constraints.append(reference)

    def _option(self, name: str, value: str, directory: str, where: str) -> None:
        sources = self.sources
        names_place = name.endswith(("url", "links"))
        if names_place and not well_formed(value):
            raise GrammarError(f"the URL of --{name} is malformed", MALFORMED_HINT)
        place = value if is_url(value) else os.path.abspath(os.path.join(directory, value))
        self.has_relative_places |= names_place and place != value and not os.path.isabs(value)
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


def _canonical(content: bytes) -> bytes:
    """Return what decides in a file that was read: all of it but comments and line breaks."""
    return "\n".join(line for _, line in logical_lines(content.decode("utf-8-sig"))).encode()


class RequirementsFile:
    """A parsed requirements file with all that it includes."""

    def __init__(self, path: str, inputs: _Inputs) -> None:
        self.path = path
        self.inputs = tuple(inputs.contents)
        self.contents = tuple(inputs.contents.values())
        self.canonical = tuple(map(_canonical, self.contents))
        self._read = inputs
        hashed = {each.name for each in inputs.constraints if each.hashes and each.marker is None}
        bare = [each for each in inputs.requirements if not each.hashes and each.name not in hashed]
        self.unhashed = bool(bare)
        self.variables = inputs.variables.names(placing=self.unhashed)
        self.values = tuple(variables.describe(self.variables, inputs.variables.environ))
        self.placed = self.unhashed and inputs.has_relative_places
        self.local_files = tuple(dict.fromkeys(each.path for each in bare if each.path is not None))

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(str(each.marker) for each in self._read.references if each.marker is not None)

    def select(
        self,
        interpreter: Interpreter,
        choice: Choice = Choice(),  # noqa: B008
        *,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        self._check(choice)
        with understanding(self.path):
            fit = wheels.Fit(interpreter)
            combined = sources.over(self._read.sources)
            references = [each for each in self._applicable(interpreter) if not choice.leaves_out(each.name)]
            referred = [each for each in references if each.direct]
            artifacts, blockers = direct(referred, fit, combined, known, given=sources, lock=self.path)
            found, lacking = resolve([each for each in references if not each.direct], fit, combined, known)
            artifacts += found
            blockers += lacking
            if blockers:
                raise refusal(self.path, blockers)
        local = tuple(a.path for a in artifacts if a.path is not None and not a.hashes and not a.alternatives)
        ordered = tuple(sorted(artifacts, key=lambda artifact: artifact.name))
        return Target(ordered, local, {each.name: each.extras for each in references if each.extras}, complete=False)

    def _check(self, choice: Choice) -> None:
        """Refuse what requirements files have not.

        :raises LockFileError: an extra, a group or a member of a workspace is asked for
        """
        for kind, names in (("extra", choice.extras), ("group", (*choice.groups, *choice.only_groups))):
            if names:
                problem = f"it does not define the {kind} `{names[0]}`; requirements files define no {kind}s"
                directory = os.path.dirname(self.path)
                command = remedies.export(directory, "uv", kind=kind, chosen=names)
                hint = f"{command} makes a lock file with it; or leave out --{kind} {names[0]}"
                raise LockFileError(self.path, problem, hint=hint)
        refuse_members(self.path, choice, "name the lock file of the workspace: `envsync sync --lock uv.lock`")

    def _applicable(self, interpreter: Interpreter) -> list[Reference]:
        """Keep what applies to the interpreter, constrained, each name once.

        :raises LockFileError: something is not pinned, lacks a hash, or is pinned twice
        """
        requirements = [each for each in self._read.requirements if self._applies(each, interpreter)]
        constraints = [each for each in self._read.constraints if self._applies(each, interpreter)]
        chosen: dict[str, Reference] = {}
        blockers: list[Blocker] = []
        for requirement in requirements:
            try:
                pinned = constrained(requirement, (c for c in constraints if c.name == requirement.name))
            except GrammarError as error:
                blockers.append(_blocker(self.path, requirement.where, error))
                continue
            earlier = chosen.setdefault(pinned.name, pinned)
            chosen[pinned.name] = replace(earlier, extras=earlier.extras | pinned.extras)
            if earlier.identity != pinned.identity:
                blockers.append(self._twice(earlier, pinned))
        blockers += self._without_hash(chosen.values())
        blockers += self._against_wishes(each for each in chosen.values() if not each.direct)
        if blockers:
            raise refusal(self.path, blockers)
        return list(chosen.values())

    def _applies(self, reference: Reference, interpreter: Interpreter) -> bool:
        try:
            return reference.marker is None or reference.marker.evaluate(dict(interpreter.markers))
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            problem = f"{reference.where}: the marker of `{reference.name}` cannot be evaluated: {error}"
            hint = f"correct the marker; {remedies.show_line(reference.where, self.path)}"
            raise LockFileError(self.path, problem, hint=hint) from error

    def _twice(self, one: Reference, other: Reference) -> Blocker:
        what = [each.filename if each.direct else f"=={each.pinned}" for each in (one, other)]
        if what[0] == what[1]:
            what = [f"{text} from elsewhere or with other hashes" for text in what]
        problem = f"`{one.name}` is pinned twice, to {what[0]} ({one.where}) and to {what[1]} ({other.where})"
        hint = f"remove one of them, or tell them apart by markers; {remedies.show_line(other.where, self.path)}"
        return Blocker(problem, hint, kind=LockFileError)

    def _without_hash(self, references: Iterable[Reference]) -> Iterator[Blocker]:
        for reference in references if self._read.needs_hashes else ():
            if not reference.hashes:
                problem = f"{reference.where}: `{reference.name}` has no hash, but where one has, all must"
                yield Blocker(problem, remedies.pin(self.path), kind=LockFileError)

    def _against_wishes(self, references: Iterable[Reference]) -> Iterator[Blocker]:
        """Refuse what an option keeps from being installed as a wheel of the version it is pinned to."""
        for each in references:
            where = self._read.wishes.where("no-binary", each.name)
            if where is not None:
                problem = f"{where}: --no-binary asks for `{each.name}` from source, and envsync installs wheels"
                built = f"pip wheel --no-deps --no-binary {each.name} --wheel-dir wheels {each.name}=={each.pinned}"
                hint = f"remove it, or lock the wheel that `{built}` builds; {remedies.show_line(where, self.path)}"
                yield Blocker(problem, hint, kind=LockFileError)
            where = self._read.wishes.where("only-final", each.name)
            if where is not None and _is_prerelease(each.pinned or ""):
                problem = f"{where}: --only-final rules out `{each.name}=={each.pinned}`, to which it is pinned"
                hint = f"remove it, or pin a final version; {remedies.show_line(where, self.path)}"
                yield Blocker(problem, hint, kind=LockFileError)
