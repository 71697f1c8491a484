"""The goal of a sync: everything that is decided before the environment is looked at.

Which lock file, parsed; which Python; which wheels, by hash, all of them in the store. Nothing here touches the
environment, so whatever is wrong with the input is said before anything is changed.

What a pylock.toml selects on one interpreter is remembered in the cache (`v1/targets`), by the digest of the
request and the interpreter's markers and tags: nothing else decides it, or it is not remembered
(`envsync.lockfile.conditions`). It is used if the store has all the wheels that it names, and saves a leader on a busy
cluster from importing a TOML parser and `packaging`.
"""

from __future__ import annotations

import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from envsync.errors import (
    EnvironmentRefusedError,
    InterpreterError,
    LockFileError,
    UnsupportedPythonError,
    remedies,
)
from envsync.errors.hints import AGAIN, ELSEWHERE
from envsync.installed.ledger import Ledger
from envsync.installed.plan import Origin, Wanted
from envsync.launch import Environment, fast_lane, stamp
from envsync.launch.progress import Report
from envsync.launch.reading import content
from envsync.launch.request import INDEX_OF_UV, Request, describe_python
from envsync.launch.stamp import LocalFile, Stamp, Tree
from envsync.leading import kept_hashes
from envsync.python import interpreter, spelling
from envsync.python.facts import Interpreter, Layout
from envsync.store.store import Store
from envsync.system import atomic, core, groups, paths, records
from envsync.system.patience import patiently
from envsync.waiting.directory import was_environment
from envsync.wheel.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from envsync.building.build import Order
    from envsync.fetching.crew import Keeper, Kept
    from envsync.lockfile import LockFile, Sources
    from envsync.lockfile.conditions import Conditions
    from envsync.lockfile.stale.comparing import Compared
    from envsync.lockfile.target import Artifact, Source, Target
    from envsync.store.archives import Archive


class Inputs(NamedTuple):
    """What the digest covers besides the options."""

    further: tuple[str, ...] = ()
    """The paths of the input files that the lock file includes."""
    checksums: tuple[str, ...] = ()
    """Of what decides in those."""
    contents: tuple[str, ...] = ()
    """Checksums of those as they were when they were parsed."""
    variables: tuple[str, ...] = ()
    """The names of environment variables that decide."""
    values: tuple[str, ...] = ()
    """What stands for them, with the values that were used when it was parsed."""
    unhashed: bool = False
    """Some reference has no hash."""
    placed: bool = False
    """Such a reference is found by a path relative to the lock file."""
    local_files: tuple[LocalFile, ...] = ()
    """Local wheels that the lock file names without a hash."""


class Python(NamedTuple):
    """The Python of the environment, and whether the environment has to be made for it."""

    interpreter: Interpreter
    make: bool
    """The environment is missing, or has to be made anew."""
    env: str
    """The absolute path by which the environment's scripts name it."""

    @property
    def description(self) -> str:
        """What the digest says of it."""
        return describe_python(self.interpreter.implementation, self.interpreter.release)

    @property
    def host(self) -> str:
        """Machine and libc family, as in `x86_64 glibc`."""
        return " ".join(self.description.split(" ")[2:])


class Goal(NamedTuple):
    """What the environment has to become."""

    inputs: Inputs
    python: Python
    digest: str
    wanted: tuple[Wanted, ...]
    """Sorted by name."""
    found_files: tuple[LocalFile, ...] = ()
    """Local wheels that were found for references without a hash."""
    conditions: Conditions | None = None
    """What markers look at that the digest does not cover anyway; None if nothing of the kind."""
    trees: tuple[Tree, ...] = ()
    """The directories of which a sync looks at more than a launch does, as they were before anything was built."""


class Aim(Protocol):
    """What a leader brings an environment to: what a lock file says (`Seeker`), or something else."""

    manifests: dict[str, Manifest]
    """Of all that is wanted and in the store, by name, once the goal is set."""

    @property
    def asked(self) -> Request | None:
        """The request whose lock file says where wheels and bytecode can be had; None: there is none."""

    @property
    def damaged(self) -> frozenset[str]:
        """Distributions that are known to be damaged, to be installed anew once."""

    @property
    def reclaim(self) -> bool:
        """Files where envsync has installed one are its own, whatever has become of them."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user may want to know, a sentence each."""

    def seek(self, ledger: Ledger) -> Goal:
        """Set the goal, and bring what has to be installed for it into the store."""

    def mended(self) -> None:
        """What was damaged has been installed anew."""

    def refetch(self, hashes: Iterable[str]) -> None:
        """Get wheels again whose entries in the store were damaged, and are gone."""

    def incomplete(self, python: Python, present: Collection[str]) -> str:
        """Say what is required and lacks, in a sentence; empty if nothing is missing."""

    def vouch(self, vouched: Stamp, goal: Goal, layout: Layout) -> bool:
        """Say in a new stamp what it is for. False: nobody knows, and there must be none."""

    def renewed(self, former: Stamp) -> Stamp | None:
        """Return the stamp with what inputs are now, if that changes nothing; None if it does, or nobody knows."""


class Seeker:
    """Sets the goal of one request: what its lock file says.

    :param report: is told how far it is
    """

    damaged: frozenset[str] = frozenset()
    reclaim = False

    def __init__(self, request: Request, environment: Environment, store: Store, report: Report) -> None:
        self.request = request
        self.environment = environment
        self.store = store
        self.report = report
        self.python: Python | None = None
        self.target: Target | None = None
        self.is_whole = True
        """The target is all that the lock file asks for."""
        self.wheels: tuple[Artifact, ...] = ()
        """Those of the target, and those that were built for it."""
        self.manifests: dict[str, Manifest] = {}
        """Of all that is wanted, by name, once `seek` or `fetch` has returned."""
        self.compared: Compared | None = None
        """The lock file with what it was made from, once `seek` has read it."""

    @property
    def asked(self) -> Request:
        return self.request

    @property
    def notes(self) -> Sequence[str]:
        """That the lock file is stale, if it is known to be so, and which variables of its tool do nothing."""
        from envsync.lockfile.uv import variables

        stale = (self.compared.note,) if self.compared is not None and self.compared.note else ()
        return (*stale, *variables.unheeded(self.request.lock, os.environ))

    @cached_property
    def lock_file(self) -> LockFile:
        """The lock file, parsed once, and only if that is needed."""
        return read_lock_file(self.request)

    def seek(self, ledger: Ledger) -> Goal:
        """Set the goal, and bring all its wheels into the store.

        :raises EnvsyncError: the lock file does not fit the Python, a wheel cannot be had, ...; nothing was touched
        """
        python = self._find_python(ledger)
        return self._with_bytecode(self._recall(python) or self._select(python, fetching=True))

    def bring(self, names: Collection[str], ledger: Ledger) -> None:
        """Bring into the store what the lock file has of some names, and build nothing else.

        :raises EnvsyncError: as for `seek`
        """
        from envsync.leading import from_source

        self.target = from_source.only(self._target(self._find_python(ledger)), names)
        self.is_whole = False
        self.fetch()

    def provide(self, ledger: Ledger) -> tuple[str, ...]:
        """Bring into the store all that environments can share.

        :returns: the names of what they cannot: what is linked to its tree
        :raises EnvsyncError: as for `seek`
        """
        from envsync.leading import from_source

        self._compare()
        self.target, left = from_source.shareable(self._target(self._find_python(ledger)))
        self.is_whole = False
        self.fetch()
        return left

    def select(self, facts: Interpreter) -> tuple[Target, tuple[str, ...]]:
        """Select what environments of a Python can share, and fetch nothing. The Python need not be here.

        What the store has is looked for all the same: it has no files as they came.

        :returns: that, and the names of what they cannot share
        :raises EnvsyncError: the lock file does not fit that Python, or a place that has to be asked does not answer
        """
        from envsync.leading import from_source
        from envsync.lockfile.parsed import known_to_nobody

        if self.compared is None:
            self._compare()
        return from_source.shareable(self._selected(facts, known_to_nobody))

    def wheels_of(self, target: Target, python: Python) -> list[Artifact]:
        """Have built what a target has that is no wheel, by a Python that is here, and return the wheels.

        What is built with others beside it has those brought into the store.

        :raises EnvsyncError: as for `seek`
        """
        from envsync.leading import from_source

        self.python, self.is_whole = python, False
        if from_source.has_unisolated(target):
            self.manifests = self._fetch([artifact for artifact in target.artifacts if artifact.source is None])
        return self._build(target) if target.sources else []

    def fetch_into(self, wheels: Sequence[Artifact], keeper: Keeper[Kept]) -> dict[str, Kept]:
        """Get wheels as files, and have them kept.

        :returns: what was kept, by name
        :raises EnvsyncError: as for `seek`
        """
        from envsync.fetching.fetch import fetch_files

        return fetch_files(
            wheels,
            self.store,
            keeper,
            offline=self.request.flag("offline"),
            report=self.report,
            index_urls=self._index_urls(),
            lock_file=self.request.lock,
        )

    def preview(self, ledger: Ledger) -> Goal:
        """Set the goal without fetching anything. A wheel whose hash is not known has the empty string for one."""
        return self._with_bytecode(self._select(self._find_python(ledger), fetching=False))

    def _find_python(self, ledger: Ledger) -> Python:
        self.python = find_python(self.request, self.environment, ledger, self.store.memory)
        return self.python

    def fetch(self) -> None:
        """Bring into the store what it lacks, for instance because an entry turned out to be damaged."""
        if self.target is None:  # the goal was recalled: now the places of the wheels are needed, too
            assert self.python is not None
            self.target = self._target(self.python)
        wheels = [artifact for artifact in self.target.artifacts if artifact.source is None]
        self.manifests = self._fetch(wheels)
        if self.target.unverified:
            kept_hashes.keep(self.target, self.manifests, self.store)
        if self.target.sources:
            wheels += self._build(self.target)
            self.manifests |= self._fetch(wheels[len(self.manifests) :])
        self.wheels = tuple(sorted(wheels, key=lambda artifact: artifact.name))

    def _fetch(self, wheels: Sequence[Artifact]) -> dict[str, Manifest]:
        from envsync.fetching.fetch import fetch

        return fetch(
            wheels,
            self.store,
            offline=self.request.flag("offline"),
            report=self.report,
            index_urls=self._index_urls(),
            lock_file=self.request.lock,
        )

    def _fetch_archives(self, wanted: Sequence[Artifact]) -> dict[str, Archive]:
        from envsync.fetching.fetch import fetch_archives

        found = fetch_archives(
            wanted,
            self.store,
            offline=self.request.flag("offline"),
            report=self.report,
            index_urls=self._index_urls(),
            lock_file=self.request.lock,
        )
        for artifact in wanted:
            kept_hashes.keep_one(artifact, found[artifact.name].sha256, self.store)
        return found

    def _index_urls(self) -> tuple[str, ...]:
        """Return where to look for credentials besides the URLs themselves."""
        from envsync.lockfile.uv import variables

        return (*self.request.texts("index_url"), *variables.index_urls(self.request.lock, os.environ))

    def _build(self, target: Target) -> list[Artifact]:
        """Have built what is no wheel, and return the wheels."""
        from envsync.leading import from_source

        yard = from_source.Yard(self.store, self._order(target), self.report, self._fetch_archives, self._fetch)
        wheels = from_source.wheels_of(target.sources, yard, self.manifests)
        if self.is_whole:
            from_source.sweep(yard.order.editables, wheels)
        return wheels

    def _order(self, target: Target) -> Order:
        from envsync.leading import from_source

        assert self.python is not None
        return from_source.order_of(
            self.request, self.environment, self.python.interpreter, target.rules, sources_of(self.request)
        )

    def mended(self) -> None:
        """Nothing was known to be damaged."""

    def refetch(self, _hashes: Iterable[str]) -> None:
        """Get wheels again whose entries in the store were damaged: whatever the store lacks."""
        self.fetch()

    def vouch(self, vouched: Stamp, _goal: Goal, _layout: Layout) -> bool:
        """The stamp is for the request, as it says already. What is said here is whether the lock file is stale."""
        vouched.checked = self._checked()
        vouched.lock = os.path.basename(self.request.lock)
        return True

    def _compare(self) -> None:
        """Compare the lock file with what it was made from.

        :raises LockFileError: it is stale, or nobody can tell, and `--locked` wants it to be known
        """
        from envsync.lockfile.stale import comparing

        self.compared = comparing.compare(self.lock_file, strictly=self.request.flag("locked"))

    def _checked(self) -> list[tuple[str, str]]:
        """Return what a stamp says of that."""
        files = self.compared.fitting if self.compared is not None else ()
        return [(stamp.checksum(data), path.removeprefix(self.request.directory)) for path, data in files]

    def renewed(self, former: Stamp) -> Stamp | None:
        """Return the stamp with what inputs are now, if nothing in them decides that did not before.

        So it is, too, if it was only not checked yet that the lock file is not stale, and `--locked` wants it checked.

        :raises LockFileError: the lock file cannot be used
        """
        found = renewed(self.request, former)
        if not self.request.flag("locked"):
            return found
        try:
            as_it_was = fast_lane.digest_of(self.request, former) == former.digest
            if not as_it_was or fast_lane.was_checked(self.request, former):
                return found
        except OSError:
            return found  # one that it was compared with is gone, which is a change
        self._compare()
        former.checked = self._checked()
        return former

    def incomplete(self, python: Python, present: Collection[str]) -> str:
        """Say what packages require and the lock file lacks, in a sentence; empty if nothing is missing.

        :param present: the names of all that is installed
        """
        if self.target is None or self.target.complete:
            return ""
        from envsync.lockfile import required

        wanted = {artifact.name for artifact in self.target.artifacts}
        requires = {name: manifest.requires for name, manifest in self.manifests.items() if name in wanted}
        found = required.missing(requires, present, self.target.extras, python.interpreter.markers)
        if not found:
            return ""
        lock = self.request.lock
        return f"`{lock}` lacks what its packages require: {required.described(found)}; {remedies.pin(lock)}"

    def _select(self, python: Python, *, fetching: bool) -> Goal:
        self._compare()
        self.target = self._target(python)
        inputs = inputs_of(self.request, self.lock_file, self.target.trees)
        conditions = conditions_of(self.request, self.lock_file, python.interpreter)
        digest = digest_of(self.request, inputs, python.description, conditions)
        trees = self._signed(self.target.trees)
        if fetching:
            self.fetch()
        else:
            self.wheels = self._previewed(self.target)
        direct = {local.path for local in inputs.local_files}
        found = (path for path in self.target.local_files if path not in direct)
        goal = Goal(
            inputs,
            python,
            digest,
            tuple(self._wanted(self.target)),
            tuple(local_file(self.request, path, direct=False) for path in found),
            conditions,
            trees,
        )
        # direct_url.json names the place of this very lock file, which the digest does not cover.
        placeless = all(item.origin.direct_url is None for item in goal.wanted)
        if fetching and placeless and conditions is None and not self.target.sources and self._is_memorable(inputs):
            self._remember(goal)
        return goal

    def _signed(self, trees: Sequence[Source]) -> tuple[Tree, ...]:
        if not trees:
            return ()
        from envsync.leading import tree_inputs

        return tree_inputs.signed(trees)

    def _previewed(self, target: Target) -> tuple[Artifact, ...]:
        wheels = [artifact for artifact in target.artifacts if artifact.source is None]
        if target.sources:
            from envsync.leading import from_source

            wheels += from_source.preview(target.sources, self.store, self._order(target))
        return tuple(sorted(wheels, key=lambda artifact: artifact.name))

    def _target(self, python: Python) -> Target:
        return self._selected(python.interpreter, self.store.filename)

    def _selected(self, facts: Interpreter, known: Callable[[str], str | None]) -> Target:
        from envsync.lockfile import choice_of

        self.report("resolving", 0, 0)
        target = self.lock_file.select(
            facts,
            choice_of(self.request.settings, self.request.member),
            sources=sources_of(self.request),
            known=known,
        )
        return kept_hashes.recalled(target, self.store) if target.unverified or target.sources else target

    def _wanted(self, target: Target) -> list[Wanted]:
        wanted = []
        unverified = frozenset(target.unverified)
        for artifact in self.wheels:
            manifest = self.manifests.get(artifact.name)
            sha256 = manifest.sha256 if manifest is not None else artifact.sha256 or ""
            origin = Origin(sha256, artifact.direct_url)
            wanted.append(Wanted(artifact.name, artifact.version, origin, unverified=artifact.name in unverified))
        return wanted

    def _with_bytecode(self, goal: Goal) -> Goal:
        """Want bytecode with everything, if it is asked for and the Python keeps any."""
        if not self.request.flag("compile_bytecode"):
            return goal
        tag = goal.python.interpreter.bytecode
        return goal._replace(wanted=tuple(item._replace(bytecode=tag) for item in goal.wanted))

    def _is_memorable(self, inputs: Inputs) -> bool:
        """Tell whether digest and interpreter alone decide the selection: so it is for pylock.toml."""
        full = looks_at_full_version(python_of(self.request))
        plain = inputs == Inputs() and not self.request.flag("locked")
        return self.request.lock.endswith(".toml") and plain and not full

    def _memory(self, digest: str, python: Python) -> str:
        key = stamp.checksum(f"target 3 {digest} {python.interpreter.fingerprint}".encode())
        return f"{self.store.memory}/v1/targets/{key}.json"

    def _remember(self, goal: Goal) -> None:
        path = self._memory(goal.digest, goal.python)
        wanted = [[item.name, item.version, *item.origin] for item in goal.wanted]
        groups.write(self.store.memory, path, {"wanted": wanted})

    def _recall(self, python: Python) -> Goal | None:
        """Return the goal that was remembered, if the store still has all of it."""
        digest = digest_of(self.request, Inputs(), python.description, None)
        if not self._is_memorable(Inputs()):
            return None
        value: dict[str, Any] = records.load(self._memory(digest, python))
        try:
            wanted = tuple(Wanted(name, version, Origin(sha, url)) for name, version, sha, url in value["wanted"])
        except atomic.SENSELESS:
            return None
        manifests: dict[str, Manifest] = {}
        for item in wanted:
            manifest = self.store.get(item.origin.sha256, lazily=True)
            if manifest is None or manifest.name != item.name:
                return None
            manifests[item.name] = manifest
        self.manifests = manifests
        return Goal(Inputs(), python, digest, wanted)


def sources_of(request: Request) -> Sources:
    """Return where the options of a request say that packages come from."""
    from envsync.lockfile import Sources
    from envsync.lockfile.sources import mirrors_of

    return Sources(
        index_urls=request.texts("index_url"),
        find_links=request.texts("find_links"),
        no_index=request.flag("no_index"),
        offline=request.flag("offline"),
        mirrors=mirrors_of(request.texts("mirrors")),
        redirecting=not request.flag(INDEX_OF_UV),
    )


def read_lock_file(request: Request) -> LockFile:
    """Parse the lock file. What is parsed is what the digest stands for, even while it is being edited.

    A pylock.toml is parsed as it was read first: that of a bundle may be replaced at any moment, which is no failure of
    those who have read the former one.

    :raises LockFileError: it cannot be used, or is not what it was when the request was made
    """
    from envsync import lockfile

    parsed = lockfile.read(request.lock, request.data)
    if stamp.checksum(parsed.contents[0]) != request.content:
        raise LockFileError(request.lock, "it changed while it was being read", hint=AGAIN)
    return parsed


def inputs_of(request: Request, parsed: LockFile, trees: Sequence[Source] = ()) -> Inputs:
    """Return what the digest covers of a parsed lock file.

    :param trees: the directories that are installed from it
    :raises LockFileError: a local wheel that it names without a hash is not there
    """
    path, text = request.pinned()
    named = [*parsed.inputs[1:], *([path] if path else [])]
    canonical = [*parsed.canonical[1:], *([text] if path else [])]
    contents = [*parsed.contents[1:], *([text] if path else [])]
    variables, values = tuple(parsed.variables), tuple(parsed.values)
    if trees:
        from envsync.leading import tree_inputs

        for name, counts, whole in tree_inputs.files_of(request, trees, besides=named):
            named.append(name)
            canonical.append(counts)
            contents.append(whole)
        more = [name for name in tree_inputs.variables_of(trees) if name not in variables]
        variables = (*variables, *more)
        values = tuple(sorted([*values, *tree_inputs.described(more)], key=lambda text: text.partition(" ")[0]))
    return Inputs(
        tuple(named),
        tuple(map(stamp.checksum, canonical)),
        tuple(map(stamp.checksum, contents)),
        variables,
        values,
        parsed.unhashed,
        parsed.placed,
        tuple(local_file(request, path, direct=True) for path in parsed.local_files),
    )


def further_of(request: Request, inputs: Inputs) -> list[stamp.Input]:
    """Return what a stamp says of the further inputs."""
    relative = [_relative(path, request.directory) for path in inputs.further]
    return list(map(stamp.Input, relative, inputs.checksums, ([content] for content in inputs.contents)))


def _relative(path: str, directory: str) -> str:
    return path[len(directory) :] if path.startswith(directory) else paths.abspath(path)


def renewed(request: Request, former: Stamp) -> Stamp | None:
    """Return a stamp with what its further inputs are now, if what counts in them is what it was.

    So a comment costs a look at the lock file, and no sync. None if something else counts, or they are as they were.

    :raises LockFileError: the lock file cannot be used
    """
    try:
        if fast_lane.are_known(request, former):
            return None
    except OSError:
        return None  # one is gone, which is a change
    now = further_of(request, inputs_of(request, read_lock_file(request)))
    if len(now) < len(former.inputs):  # those of trees come last, and are for the same trees if all before is the same
        from envsync.leading import tree_inputs

        now += tree_inputs.again(request, former.inputs[len(now) :])
    if [(each.path, each.counts) for each in now] != [(each.path, each.counts) for each in former.inputs]:
        return None
    for before, here in zip(former.inputs, now, strict=True):
        before.seen = stamp.latest(before.seen, here.seen[0])
    return former


def conditions_of(request: Request, parsed: LockFile, facts: Interpreter) -> Conditions | None:
    """Find out what the lock file, or `--python`, looks at beyond X.Y; None if at nothing."""
    from envsync.lockfile import conditions

    spec = python_of(request)
    asked = [f'python_full_version in "{facts.version}"'] if looks_at_full_version(spec) else []
    found = conditions.of([*parsed.markers, *asked], facts.markers)
    return found if found.text else None


def python_of(request: Request) -> str | None:
    """Return which Python is asked for: by an option, or in a project of uv's by its `.python-version`, as uv does.

    :raises InterpreterError: nobody knows which one such a file means
    """
    spec = request.text("python")
    if spec is None:
        path, text = request.pinned()
        return spelling.translate_pin(text, path) if path else None
    try:
        return spelling.translate(spec)
    except ValueError:
        return spec  # `find` may know it


def looks_at_full_version(spec: str | None) -> bool:
    """Tell whether `--python` asks for more than X.Y. The name of a file does not."""
    return spec is not None and not core.has_directory(spec) and any(part.count(".") > 1 for part in spec.split(","))


def local_file(request: Request, path: str, *, direct: bool) -> LocalFile:
    """Look at a local wheel that has no hash.

    :raises LockFileError: it is not there
    """
    try:
        status = patiently(os.stat, path)
    except OSError as error:
        raise LockFileError(request.lock, f"cannot read wheel `{path}`: {error.strerror}") from error
    return LocalFile(path, status.st_size, status.st_mtime_ns, direct=direct)


def find_python(request: Request, environment: Environment, ledger: Ledger, cache: str) -> Python:
    """Find out which Python the environment has, whether it will do, and else which one to make it with.

    :raises InterpreterError: none was found
    :raises EnvironmentRefusedError: the environment was made for another kind of host
    """
    spec = python_of(request)
    path = paths.abspath(environment.path)
    usable = _usable(environment, ledger, path, cache, strict=spec is None)
    if usable is not None and (spec is None or _satisfies(usable.interpreter, spec, cache)):
        _refuse_other_hosts(usable, ledger)
        return usable
    _refuse_base(environment, ledger, path)
    base = interpreter.find(spec) if spec is not None else _base_of(environment, cache)
    made = Python(interpreter.inspect(base, cache), make=True, env=path)
    if usable is not None:
        _refuse_other_hosts(made, ledger)
    return made


def _has_commands(environment: Environment) -> bool:
    """Tell whether there is anything in `bin`: a purge takes files and links, and leaves directories."""
    try:
        return bool(os.listdir(environment.bin))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it may not be looked into, or is no directory


def _refuse_base(environment: Environment, ledger: Ledger, path: str) -> None:
    """What is to be remade has to be a virtual environment: never the base Python or a conda environment (P10)."""
    surely = os.path.lexists(environment.config) or os.path.lexists(environment.making) or ledger.path
    if not surely and _has_commands(environment) and not was_environment(environment):
        raise EnvironmentRefusedError(
            path,
            "it has a Python of its own and no pyvenv.cfg, so it is not a virtual environment",
            hint=ELSEWHERE,
        )


def _usable(environment: Environment, ledger: Ledger, path: str, cache: str, *, strict: bool) -> Python | None:
    """Return the environment's own Python if it runs, has its prefix here, and the environment has not moved."""
    if os.path.lexists(environment.making) or not os.path.isfile(environment.config):
        return None
    if not os.access(environment.python, os.X_OK):
        return None
    try:
        facts = interpreter.inspect(environment.python, cache)
    except UnsupportedPythonError:
        if strict:
            raise
        return None  # another one is asked for
    except InterpreterError:
        return None  # its base is gone
    if paths.realpath(facts.prefix) != paths.realpath(path):
        return None  # it is the base interpreter, whose packages are none of our business
    if ledger.path and ledger.path != path:
        try:
            if not os.path.samefile(ledger.path, path):
                return None
        except OSError:
            return None  # it was moved, and every script in it names the place where it was
        path = ledger.path
    return Python(facts, make=False, env=path)


def _satisfies(facts: Interpreter, spec: str, cache: str) -> bool:
    """Tell whether the environment's Python is what `--python` asks for."""
    if spec.replace(".", "").isdigit():
        return f"{facts.version}.".startswith(f"{spec}.") and "t" not in facts.release
    asked = interpreter.inspect(interpreter.find(spec), cache)
    if looks_at_full_version(spec) and asked.version != facts.version and not _is_allowed(facts.version, spec):
        return False
    return (asked.implementation, asked.release) == (facts.implementation, facts.release)


def _is_allowed(version: str, spec: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(spec).contains(version, prereleases=True)
    except InvalidSpecifier:
        return False


def _base_of(environment: Environment, cache: str) -> str:
    """Choose the Python to make an environment with: the one that it had, one of that version, or ours."""
    settings = _configuration(environment)
    version = ".".join((settings.get("version") or settings.get("version_info") or "").split(".")[:2])
    if not version:
        return interpreter.own_base()
    home = settings.get("home", "")
    for candidate in (settings.get("executable", ""), f"{home}/python{version}", f"{home}/python3"):
        try:
            if candidate and interpreter.inspect(candidate, cache).short_version == version:
                return candidate
        except InterpreterError:
            pass  # that one is gone
    if version != ".".join(map(str, sys.version_info[:2])):
        try:
            return interpreter.find(version)
        except InterpreterError:
            pass  # there is none of that version any more: ours will do
    return interpreter.own_base()


def _configuration(environment: Environment) -> dict[str, str]:
    """Read pyvenv.cfg; empty if there is none."""
    try:
        pairs = (line.partition("=") for line in content(environment.config).decode().splitlines())
        return {key.strip(): value.strip() for key, _, value in pairs}
    except (OSError, ValueError):
        return {}


def _refuse_other_hosts(python: Python, ledger: Ledger) -> None:
    """An environment is not resynced back and forth between machines that cannot share it."""
    if ledger.host and ledger.host != python.host:
        raise EnvironmentRefusedError(
            python.env,
            f"it was made for {ledger.host}, and this host is {python.host}",
            hint="give each kind of host its own: `envsync sync --env '.venvs/{digest}'`",
        )


def digest_of(request: Request, inputs: Inputs, python: str, conditions: Conditions | None) -> str:
    """Compute the digest of a request whose lock file is parsed."""
    return request.digest(
        python,
        inputs.checksums,
        variables=inputs.values,
        conditions=conditions.text if conditions is not None else "",
        unhashed=inputs.unhashed,
        placed=inputs.placed,
        local_files=inputs.local_files,
    )
