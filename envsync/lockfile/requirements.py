"""Pinned requirements files: once they are read (`included`), select what applies to one interpreter."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.version import InvalidVersion, Version

from envsync.errors import LockFileError, remedies
from envsync.errors.redact import redacted
from envsync.launch import variables
from envsync.lockfile import hearing, wheels
from envsync.lockfile.blockers import Blocker, refusal, unbuilt
from envsync.lockfile.choice import Choice
from envsync.lockfile.grammar import GrammarError, logical_lines
from envsync.lockfile.included import Inputs, blocker_of, gather
from envsync.lockfile.parsed import known_to_nobody, refuse_members, understanding
from envsync.lockfile.reference import Reference, constrained
from envsync.lockfile.resolve import direct, resolve
from envsync.lockfile.sources import Sources
from envsync.lockfile.target import GIT, Artifact, BuildRules, Source, Target
from envsync.lockfile.wheels import Forms
from envsync.python.facts import Interpreter
from envsync.system import paths


def read(path: str) -> RequirementsFile:
    """Read a requirements file and all that it includes.

    :raises LockFileError: one cannot be read, or a line cannot be used; the message names file and line
    """
    inputs = gather(path)
    if inputs.blockers:
        raise refusal(path, [*inputs.blockers, *_unpinned(inputs)])
    return RequirementsFile(path, inputs)


def _unpinned(inputs: Inputs) -> Iterator[Blocker]:
    """Find what is not pinned, or contradicts itself, whatever the interpreter: it is said with what else is wrong."""
    for each in inputs.requirements:
        if each.marker is None:
            try:
                constrained(each, (c for c in inputs.constraints if c.name == each.name and c.marker is None))
            except GrammarError as error:
                yield blocker_of(inputs.lock_file, each.where, error)


def _is_prerelease(version: str) -> bool:
    try:
        return Version(version).is_prerelease
    except InvalidVersion:  # `===` takes anything
        return False


def _canonical(content: bytes) -> bytes:
    """Return what decides in a file that was read: all of it but comments and line breaks."""
    return "\n".join(line for _, line in logical_lines(content.decode("utf-8-sig"))).encode()


class RequirementsFile:
    """A parsed requirements file with all that it includes."""

    def __init__(self, path: str, inputs: Inputs) -> None:
        self.path = path
        self.inputs = tuple(inputs.contents)
        self.contents = tuple(inputs.contents.values())
        self.canonical = tuple(map(_canonical, self.contents))
        self._read = inputs
        hashed = {each.name for each in inputs.constraints if each.hashes and each.marker is None}
        given = [*inputs.requirements, *(each for each in inputs.constraints if each.direct)]
        bare = [each for each in given if not each.hashes and each.name not in hashed and not each.is_commit]
        self.unhashed = bool(bare)
        around = inputs.surroundings
        self.inputs += tuple(around.names.files)
        self.contents += tuple(around.names.files.values())
        self.canonical += around.names.canonical
        self.variables = around.variables(placing=self.unhashed)
        self.values = tuple(variables.describe(self.variables, around.environ))
        self.placed = self.unhashed and around.has_relative_places
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
            applicable = [each for each in self._applicable(interpreter) if not choice.leaves_out(each.name)]
            references = applicable if choice.editable else [*map(_unlinked, applicable)]
            forms = {each.name: self._forms(each, choice) for each in references}
            if forbidden := [*self._forbidden(references, forms)]:
                raise refusal(self.path, forbidden)
            referred = [each for each in references if each.direct]
            artifacts, blockers = direct(referred, fit, combined, known, given=sources, lock=self.path)
            pinned = [each for each in references if not each.direct]
            found, lacking = resolve(pinned, fit, combined, known, forms)
            artifacts += found
            blockers += [*lacking, *self._unfollowed(references, artifacts)]
            if blockers:
                raise refusal(self.path, blockers)
        local = tuple(a.path for a in artifacts if a.path is not None and not a.hashes and not a.alternatives)
        ordered = tuple(sorted(artifacts, key=lambda artifact: artifact.name))
        extras = {each.name: each.extras for each in references if each.extras}
        config = tuple((each.name, *setting) for each in references for setting in each.own.config)
        rules = BuildRules(config_of=config)
        self._warn_of_copies(references)
        return Target(ordered, local, extras, complete=False, rules=rules)

    def _warn_of_copies(self, references: Iterable[Reference]) -> None:
        """Say which commits are not editable, though a line says so."""
        with hearing.about(self.path):
            for each in references:
                if each.is_commit and each.own.editable:
                    text = f"{each.where}: `{each.name}` is installed as a copy of {each.shown}, with no link to it"
                    warnings.warn(text, stacklevel=2)

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
                blockers.append(blocker_of(self.path, requirement.where, error))
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
        what = [each.shown if each.direct else f"=={each.pinned}" for each in (one, other)]
        if what[0] == what[1]:
            what = [f"{text} from elsewhere or with other hashes" for text in what]
        problem = f"`{one.name}` is pinned twice, to {what[0]} ({one.where}) and to {what[1]} ({other.where})"
        hint = f"remove one of them, or tell them apart by markers; {remedies.show_line(other.where, self.path)}"
        return Blocker(problem, hint, kind=LockFileError)

    def _without_hash(self, references: Iterable[Reference]) -> Iterator[Blocker]:
        for each in references:
            if each.source is not None and not each.is_file and (each.hashes or self._read.needs_hashes):
                problem = f"{each.where}: `{each.name}` is {each.shown}, which has no hash, but where one has, all must"
                yield Blocker(problem, build=_as_pip_takes_it(each.source), kind=LockFileError)
            elif self._read.needs_hashes and not each.hashes:
                problem = f"{each.where}: `{each.name}` has no hash, but where one has, all must"
                yield Blocker(problem, remedies.pin(self.path), kind=LockFileError)

    def _forms(self, reference: Reference, choice: Choice) -> Forms:
        """Tell in which forms a package may be taken. As by pip, what the file wishes counts for what is looked for."""
        name = reference.name
        if reference.direct:
            return Forms(choice.forbids_wheel(name), choice.forbids_build(name))
        return Forms(
            choice.forbids_wheel(name) or self._wished("no-binary", name),
            choice.forbids_build(name) or self._wished("only-binary", name),
        )

    def _wished(self, option: str, name: str) -> str:
        where = self._read.wishes.where(option, name)
        return f"--{option} ({where})" if where is not None else ""

    def _forbidden(self, references: Iterable[Reference], forms: Mapping[str, Forms]) -> Iterator[Blocker]:
        """Refuse, before anything is looked for, what may be taken in no form that there can be."""
        for each in references:
            no_wheel, no_build = forms[each.name]
            if no_build and (no_wheel or each.source is not None):
                what = f"it is {each.shown}" if each.source is not None else f"{no_wheel} forbids its wheels"
                blocker = unbuilt(each.name, what, no_build)
                yield blocker._replace(problem=f"{each.where}: {blocker.problem}")
            elif no_wheel and each.direct and each.source is None:
                problem = f"{each.where}: `{each.name}` is a wheel, `{each.filename}`, which {no_wheel} forbids"
                yield Blocker(problem, "name its source distribution instead, or leave out the option")

    def _unfollowed(self, references: Iterable[Reference], artifacts: Iterable[Artifact]) -> Iterator[Blocker]:
        """Refuse what would be built without an option that its line gives."""
        built = {each.name for each in artifacts if each.source is not None}
        for each in references:
            if each.name in built and each.own.refused:
                problem = (
                    f"{each.where}: `{each.name}` has to be built, and nothing follows `{each.own.refused}` any more"
                )
                hint = f"say it with --config-settings; {remedies.show_line(each.where, self.path)}"
                yield Blocker(problem, hint, kind=LockFileError)

    def _against_wishes(self, references: Iterable[Reference]) -> Iterator[Blocker]:
        """Refuse what an option keeps from being installed in the version that it is pinned to."""
        for each in references:
            where = self._read.wishes.where("only-final", each.name)
            if where is not None and _is_prerelease(each.pinned or ""):
                problem = f"{where}: --only-final rules out `{each.name}=={each.pinned}`, to which it is pinned"
                hint = f"remove it, or pin a final version; {remedies.show_line(where, self.path)}"
                yield Blocker(problem, hint, kind=LockFileError)


def _unlinked(reference: Reference) -> Reference:
    """Return a requirement that is not editable."""
    source = reference.source
    return reference if source is None else replace(reference, source=source._replace(editable=False))


def _as_pip_takes_it(source: Source) -> str:
    below = f"#subdirectory={source.subdirectory}" if source.subdirectory else ""
    if source.kind == GIT:
        return redacted(f"git+{source.place}@{source.commit}{below}")
    return paths.join(source.place, source.subdirectory).rstrip("/")
