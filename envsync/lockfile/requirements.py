"""Pinned requirements files: read with all that they include, then select what applies to one interpreter.

Relative paths (`-r`, `-c`, `-f`, `./name-1.0-py3-none-any.whl`) are relative to the file that has them, so
that a file means the same wherever envsync is started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName

from envsync.errors import LockFileError, NoWheelError
from envsync.lockfile import wheels
from envsync.lockfile.formats import known_to_nobody, read_input
from envsync.lockfile.grammar import GrammarError, expand, logical_lines, parse
from envsync.lockfile.reference import Reference, constrained
from envsync.lockfile.reference import parse as parse_reference
from envsync.lockfile.resolve import in_store, resolve
from envsync.lockfile.sources import (
    MALFORMED_HINT,
    Sources,
    direct_url_text,
    host_of,
    is_url,
    well_formed,
    with_credentials,
)
from envsync.target import Artifact, Interpreter, Target


def read(path: str) -> RequirementsFile:
    """Read a requirements file and all that it includes.

    :raises LockFileError: one cannot be read, or a line cannot be used; the message names file and line
    """
    reader = _Reader(path)
    reader.read(path, "", constraints=False, including=())
    return RequirementsFile(path, reader)


class _Reader:
    """What the files said, in the order of reading."""

    def __init__(self, path: str) -> None:
        self.lock_file = path
        self.contents: dict[str, bytes] = {}
        self.requirements: list[Reference] = []
        self.constraints: list[Reference] = []
        self.sources = Sources()
        self.require_hashes = False

    def read(self, path: str, origin: str, *, constraints: bool, including: tuple[str, ...]) -> None:
        absolute = os.path.abspath(path)
        if absolute in including:
            chain = " includes ".join(f"`{os.path.basename(each)}`" for each in (*including, absolute))
            raise LockFileError(self.lock_file, f"{origin}it includes itself: {chain}", hint="remove one of the lines")
        content = read_input(path, self.lock_file, origin)
        self.contents.setdefault(path, content)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problem = f"{origin}`{path}` is not UTF-8 (byte {error.start})"
            raise LockFileError(self.lock_file, problem, hint=f"iconv -t UTF-8 {path} > {path}.new") from error
        for number, line in logical_lines(text):
            where = f"line {number}" if path == self.lock_file else f"line {number} of `{path}`"
            try:
                self._line(line, path, where, constraints=constraints, including=(*including, absolute))
            except GrammarError as error:
                raise LockFileError(self.lock_file, f"{where}: {error.problem}", hint=error.hint) from error

    def _line(self, line: str, path: str, where: str, *, constraints: bool, including: tuple[str, ...]) -> None:
        parsed = parse(expand(line, os.environ))
        directory = os.path.dirname(path)
        for name, value in parsed.options:
            if name in ("requirement", "constraint"):
                if is_url(value):
                    raise GrammarError(
                        "an included file cannot be at a URL, for it may change",
                        "download it beside this one",
                    )
                included = os.path.join(directory, value)
                self.read(included, f"{where}: ", constraints=name == "constraint", including=including)
            else:
                self._option(name, value, directory)
        if parsed.options:
            return
        reference = parse_reference(parsed, os.path.abspath(directory), where)
        if not constraints:
            self.requirements.append(reference)
        elif reference.direct:
            raise GrammarError("a constraint cannot be a URL or path", "pin its version instead")
        else:
            self.constraints.append(reference)

    def _option(self, name: str, value: str, directory: str) -> None:
        sources = self.sources
        if name.endswith(("url", "links")) and not well_formed(value):
            raise GrammarError(f"the URL of --{name} is malformed", MALFORMED_HINT)
        place = value if is_url(value) else os.path.abspath(os.path.join(directory, value))
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
        # What is left (--only-binary, --prefer-binary, --pre) asks for what pinned wheels are anyway.


class RequirementsFile:
    """A parsed requirements file with all that it includes."""

    def __init__(self, path: str, reader: _Reader) -> None:
        self.path = path
        self.inputs = tuple(reader.contents)
        self.contents = tuple(reader.contents.values())
        self._requirements = tuple(reader.requirements)
        self._constraints = tuple(reader.constraints)
        self._sources = reader.sources
        self._require_hashes = reader.require_hashes or any(r.hashes for r in (*self._requirements, *self._constraints))
        hashed = {each.name for each in self._constraints if each.hashes and each.marker is None}
        bare = [each for each in self._requirements if not each.hashes and each.name not in hashed]
        self.unhashed = bool(bare)
        self.local_files = tuple(dict.fromkeys(each.path for each in bare if each.path is not None))

    def select(
        self,
        interpreter: Interpreter,
        *,
        extras: tuple[str, ...] = (),
        groups: tuple[str, ...] | None = None,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        for kind, names in (("extra", extras), ("group", groups or ())):
            if names:
                problem = f"it does not define the {kind} `{names[0]}`; requirements files define no {kind}s"
                raise LockFileError(
                    self.path, problem, hint=f"lock into a pylock.toml with that {kind}, or leave it out"
                )
        fit = wheels.Fit(interpreter)
        combined = sources.over(self._sources)
        references = self._applicable(interpreter)
        artifacts = [self._direct(each, fit, combined, known) for each in references if each.direct]
        artifacts += resolve(self.path, [each for each in references if not each.direct], fit, combined, known)
        local = tuple(a.path for a in artifacts if a.path is not None and not a.hashes and not a.alternatives)
        return Target(tuple(sorted(artifacts, key=lambda artifact: artifact.name)), local)

    def _applicable(self, interpreter: Interpreter) -> list[Reference]:
        """Keep what applies to the interpreter, constrained, each name once.

        :raises LockFileError: something is not pinned, lacks a hash, or is pinned twice
        """
        requirements = [each for each in self._requirements if self._applies(each, interpreter)]
        constraints = [each for each in self._constraints if self._applies(each, interpreter)]
        chosen: dict[str, Reference] = {}
        for requirement in requirements:
            try:
                pinned = constrained(requirement, (c for c in constraints if c.name == requirement.name))
            except GrammarError as error:
                raise LockFileError(self.path, f"{requirement.where}: {error.problem}", hint=error.hint) from error
            earlier = chosen.setdefault(pinned.name, pinned)
            if earlier.identity != pinned.identity:
                self._refuse_twice(earlier, pinned)
        self._check_hashes(chosen.values())
        return list(chosen.values())

    def _applies(self, reference: Reference, interpreter: Interpreter) -> bool:
        try:
            return reference.marker is None or reference.marker.evaluate(dict(interpreter.markers))
        except (UndefinedComparison, UndefinedEnvironmentName) as error:
            problem = f"{reference.where}: the marker of `{reference.name}` cannot be evaluated: {error}"
            raise LockFileError(self.path, problem, hint="correct the marker") from error

    def _refuse_twice(self, one: Reference, other: Reference) -> None:
        what = [each.filename if each.direct else f"=={each.pinned}" for each in (one, other)]
        if what[0] == what[1]:
            what = [f"{text} from elsewhere or with other hashes" for text in what]
        problem = f"`{one.name}` is pinned twice, to {what[0]} ({one.where}) and to {what[1]} ({other.where})"
        raise LockFileError(self.path, problem, hint="remove one of them, or tell them apart by markers")

    def _check_hashes(self, references: Iterable[Reference]) -> None:
        if not self._require_hashes:
            return
        for reference in references:
            if not reference.hashes:
                problem = f"{reference.where}: `{reference.name}` has no hash, but where one has, all must"
                hint = "lock again with `uv pip compile --generate-hashes`, or add --hash=sha256:DIGEST"
                raise LockFileError(self.path, problem, hint=hint)

    def _direct(
        self, reference: Reference, fit: wheels.Fit, sources: Sources, known: Callable[[str], str | None]
    ) -> Artifact:
        """Make the artifact of a reference to a URL or path.

        :raises NoWheelError: the wheel does not fit, or is a path that does not exist
        """
        name = wheels.WheelName(reference.filename)
        if not fit.fits(name.tags):
            problem = f"{reference.where}: `{reference.name}`: {wheels.no_fit([name.filename], fit)}"
            raise NoWheelError(self.path, problem, hint=wheels.how_to_build(name.name, name.version))
        offer = wheels.Offer(
            name.name,
            name.version,
            name.filename,
            in_store(reference.pin, known),
            path=reference.path,
            url=reference.url,
        )
        artifact = wheels.artifact_of(offer, reference.pin)
        artifact = artifact._replace(direct_url=direct_url_text(reference.path or reference.url or "", artifact.hashes))
        if reference.path is not None:
            if not artifact.hashes and not os.path.isfile(reference.path):
                problem = f"{reference.where}: there is no file `{reference.path}`"
                raise NoWheelError(self.path, problem, hint="put the wheel there, or correct the path")
            return artifact
        assert reference.url is not None
        if sources.offline:
            missing = (
                f"package `{name.name}`: `{name.filename}` is not in the cache, and --offline rules out "
                f"fetching it from `{host_of(reference.url)}`; run once without --offline"
            )
            return artifact._replace(url=None, missing=missing)
        return artifact._replace(url=with_credentials(reference.url, sources.index_urls + sources.extra_index_urls))
