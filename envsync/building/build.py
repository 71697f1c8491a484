"""Make wheels of what a lock file names that is none: several at once, and each by one process, whoever else asks.

For each source: its key (`keys`); what was built before (`built`), or in an environment, for its editables; else its
lock, a second look, and the build. So whoever waits finds what it has waited for, or how that failed.

    archive → unpack          ┐
    git     → check out       ├→ build environment → hooks of the backend → a wheel, checked → the cache
    tree    → copy            ┘
    editable: the hooks run in the tree itself, under its lock; the wheel stays in the environment

All of it is done in a directory in the cache's `tmp`, which goes in the end; after a SIGKILL that is what is left.
What is built without isolation comes last, for it is built with all the other wheels beside it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import file_digest
from typing import NamedTuple

from envsync.building import archives, backend, built, git, keys, trees, variables
from envsync.building.beside import Beside
from envsync.building.built import Built
from envsync.building.environments import BuildEnvironments
from envsync.building.keys import Recipe
from envsync.errors import BuildError, FilesystemError, LockingError
from envsync.launch import signals
from envsync.launch.progress import Report
from envsync.launch.reading import content_if_there
from envsync.launch.stamp import checksum
from envsync.launch.variables import describe
from envsync.lockfile.sources import Sources
from envsync.lockfile.target import ARCHIVE, DIRECTORY, GIT, Artifact, BuildRules, Source
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.python.facts import Interpreter
from envsync.store import trash
from envsync.store.archives import Archive, check
from envsync.store.store import Store
from envsync.system import atomic, groups, paths, processes

MOST_AT_ONCE = 4
RENEW_SECONDS = 3600.0
LOOK_SECONDS = 0.1
"""Between two looks whether a build has ended, or a lock is free."""


class Order(NamedTuple):
    """What is the same for all that is built for one target."""

    python: Interpreter
    rules: BuildRules
    sources: Sources
    """Where build requirements come from."""
    editables: str
    """The directory in which an environment keeps its editable wheels."""
    site: str = ""
    """What a site adds to the keys."""
    installer: str = "pip"
    offline: bool = False
    trusted: frozenset[int] = frozenset()
    """The users whose built wheels count."""


class Job(NamedTuple):
    """One wheel to be made."""

    artifact: Artifact
    key: str
    recipe: Recipe
    archive: Archive | None = None

    @property
    def source(self) -> Source:
        assert self.artifact.source is not None
        return self.artifact.source

    @property
    def package(self) -> str:
        """What it is called in messages."""
        return self.artifact.label


# What is there already


def job_of(
    artifact: Artifact,
    order: Order,
    archive: Archive | None = None,
    *,
    beside: Iterable[str] = (),
    checkpoint: Callable[[], object] = lambda: None,
) -> Job:
    """Find out under which key a wheel is kept.

    :param archive: of an archive: it, or at least its hash
    :param beside: the hashes of the wheels that it is installed with
    :raises FilesystemError: a tree cannot be read
    """
    source = artifact.source
    assert source is not None
    recipe = keys.recipe_of(artifact.name, order.rules, beside)
    if source.kind == DIRECTORY and not os.path.isdir(source.place):
        hint = f"`ls -ld {source.place}` shows what is there; lock again if it has moved"
        raise BuildError(artifact.name, f"there is no directory `{source.place}`", hint=hint)
    if source.editable:
        tree = trees.project_of(source)
        decides = {**_deciding(tree), "build-key": order.site}
        return Job(artifact, keys.editable_key(tree, artifact.name, decides, recipe, order.python), recipe)
    if source.kind == DIRECTORY:
        identity = "\n".join([trees.digest(source.place, checkpoint), *trees.outside(trees.project_of(source))])
    else:
        identity = source.commit if source.kind == GIT else archive.sha256 if archive is not None else ""
    added = "\n".join([order.site, *variables.of_versions(os.environ)])
    return Job(artifact, keys.key_of(artifact, identity, recipe, order.python, added), recipe, archive)


def _deciding(tree: str) -> dict[str, str]:
    decides = trees.deciding(tree)
    found = {file: checksum(trees.canonical(file, content_if_there(paths.join(tree, file)))) for file in decides.files}
    values = describe(decides.variables, os.environ)
    return found | {"variables": "\n".join(values), "rest": trees.signature(tree, editable=True)}


def find(job: Job, store: Store, order: Order) -> Built | None:
    """Look for a wheel that was made before."""
    if job.source.editable:
        return _editable(f"{order.editables}/{job.key}")
    for root in (store, *_below(store)):
        found = built.find(root, job.key, (keys.PURE, keys.host_variant(order.python)), order.trusted)
        if found is not None:
            return found
    return None


def _below(store: Store) -> list[Store]:
    """Return the store that cannot be written, if there is one beneath."""
    return [Store(store.below)] if store.below is not None else []


def _editable(place: str) -> Built | None:
    try:
        names = [name for name in os.listdir(place) if name.endswith(".whl")]
        return Built(f"{place}/{names[0]}", hash_of(f"{place}/{names[0]}")) if len(names) == 1 else None
    except OSError:
        return None


def hash_of(path: str) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def sweep(editables: str, used: Iterable[str]) -> None:
    """Remove the editable wheels of an environment that nothing uses any more.

    :param used: the keys of those that are
    """
    try:
        unused = set(os.listdir(editables)) - set(used)
    except OSError:
        return
    for name in unused:
        atomic.discard_tree(f"{editables}/{name}")


# Building


def build(jobs: Sequence[Job], store: Store, order: Order, report: Report) -> dict[str, Built]:
    """Make the wheels of all jobs; blocks until they are there.

    :returns: them, by the artifacts' names
    :raises BuildError: one cannot be built; the others are ended, and what was built of them is kept
    :raises EnvsyncError: a repository cannot be fetched, the cache cannot be written, ...
    """
    store.prepare()
    work = _Work(jobs, store, order, report)
    try:
        return work.run()
    finally:
        store.note_written()


class _Work:
    """Several builds at once, each in a thread of its own. What a report raises, or a signal, ends them all."""

    def __init__(self, jobs: Sequence[Job], store: Store, order: Order, report: Report) -> None:
        self.store = store
        self.order = order
        self._jobs = list(jobs)
        self._report = report
        self._done: dict[str, Built] = {}
        self._errors: list[BaseException] = []
        self._states: dict[str, str] = {}
        """Of those in work, by name, for whom it waits; empty while it is built here."""
        self._over = threading.Event()
        self._began = time.monotonic()

    def run(self) -> dict[str, Built]:
        waiting = list(self._jobs)
        running: list[threading.Event] = []
        try:
            while (waiting or running) and not self._errors:
                while waiting and len(running) < min(MOST_AT_ONCE, processes.processors()):
                    self._start(waiting.pop(0), running)
                signals.heed()
                self._tell()
                running[0].wait(LOOK_SECONDS)
                running = [ended for ended in running if not ended.is_set()]
        finally:
            self._over.set()
            for ended in running:
                ended.wait()
        if self._errors:
            raise min(self._errors, key=lambda error: isinstance(error, _GivenUpError))
        return self._done

    def _start(self, job: Job, running: list[threading.Event]) -> None:
        """Start a build. That it has ended it says itself.

        Python 3.11 takes a thread for ended whose `join` a signal has interrupted (`Thread._wait_for_tstate_lock`).
        """
        ended = threading.Event()
        name = f"envsync build {job.artifact.name}"
        thread = threading.Thread(target=self._make, args=(job, ended), name=name)
        running.append(ended)
        try:
            thread.start()
        finally:
            if thread.ident is None:
                ended.set()

    def _make(self, job: Job, ended: threading.Event) -> None:
        try:
            self._done[job.artifact.name] = _made(job, self.store, self.order, self._checkpoint, self._say(job))
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            self._errors.append(error)
        finally:
            self._states.pop(job.package, None)
            ended.set()

    def _say(self, job: Job) -> Callable[[str], None]:
        def say(state: str) -> None:
            self._states[job.package] = state

        return say

    def _checkpoint(self) -> None:
        if self._over.is_set():
            raise _GivenUpError

    def _tell(self) -> None:
        states = dict(self._states)
        here = ", ".join(package for package, state in states.items() if not state)
        seconds = time.monotonic() - self._began
        phase = f"building {here} for {seconds:.0f} s" if here else next(iter(states.values()), "building")
        if len(self._jobs) == 1:
            self._report(phase, 0, 0)
        else:
            self._report(f"{phase}, built", len(self._done), len(self._jobs))


class _GivenUpError(Exception):
    """Another build has failed, or nobody wants this one any more."""


def _made(job: Job, store: Store, order: Order, checkpoint: Callable[[], object], say: Callable[[str], None]) -> Built:
    """Make one wheel, or wait until another process has made it."""
    before, waited = built.failure(store, job.key), False
    while True:
        found = find(job, store, order)
        if found is not None:
            return found
        lock, is_free = _turn(store, job.key)
        if is_free:
            break
        waited = True
        say(built.builder(store, job.key, job.package))
        checkpoint()
        time.sleep(LOOK_SECONDS)
    say("")
    try:
        found = find(job, store, order)
        failed = built.shared_failure(store, job.key, before, order.trusted) if waited else None
        if failed is not None:
            raise failed
        return found or _build(job, store, order, checkpoint)
    finally:
        if lock is not None:
            lock.release()


def _turn(store: Store, key: str) -> tuple[Flock | None, bool]:
    """Try to be the one who builds. It only saves work: where nothing can be locked, it is one's turn at once.

    :returns: the lock, and whether it is one's turn
    """
    path = f"{store.locks}/{key}"
    groups.make_lock_file(store.root, path)
    try:
        lock = flock.acquire_nowait(path, shared=False)
    except (LockingError, FilesystemError):
        return None, True
    return lock, lock is not None


class _Site(NamedTuple):
    """Where one wheel is built, and with what."""

    job: Job
    store: Store
    order: Order
    checkpoint: Callable[[], object]
    work: str
    """A directory that goes in the end."""
    log: str


def _build(job: Job, store: Store, order: Order, checkpoint: Callable[[], object]) -> Built:
    """Build it, in a directory that goes in the end."""
    work = store.staging("build")
    site = _Site(job, store, order, _renewing(work, checkpoint), work, f"{work}/log")
    built.announce(store, job.key, job.package)
    try:
        os.mkdir(site.work, 0o700)
        os.mkdir(f"{site.work}/wheel")
        wheel = _wheel(site)
        version = job.artifact.version if job.source.kind == ARCHIVE else ""
        backend.check(wheel, job.artifact.name, version or None, order.python, log=site.log)
        return _keep(site, wheel)
    except BuildError as error:
        error.log = _kept_log(site) if error.log else ""
        built.fail(store, job.key, error)
        raise
    except OSError as error:
        raise FilesystemError("use", str(error.filename or site.work), error) from error
    finally:
        built.withdraw(store, job.key)
        trash.remove_tree(site.work)


def _renewing(work: str, checkpoint: Callable[[], object]) -> Callable[[], object]:
    """Let a directory look new while something is built in it: what is a day old in tmp is swept by other syncs."""
    due = time.monotonic() + RENEW_SECONDS

    def check() -> None:
        nonlocal due
        checkpoint()
        if time.monotonic() >= due:
            due = time.monotonic() + RENEW_SECONDS
            built.touch(work)

    return check


def _kept_log(site: _Site) -> str:
    """Keep the log of a build that has failed, and return its path; empty if it cannot be kept. Others tell nothing."""
    store, job = site.store, site.job
    path = f"{store.logs}/{job.artifact.name}-{job.key[:8]}-{os.urandom(4).hex()}.log"
    try:
        groups.make_directory(store.root, store.logs)
        atomic.move(site.log, path)
    except OSError:
        return ""
    return path


def _wheel(site: _Site) -> str:
    """Run the backend where its tree is, and return the path of what it has made."""
    source = site.job.source
    if source.kind == DIRECTORY:
        tree = trees.project_of(source)
        if source.editable or trees.looks_outside(tree):
            return _in_tree(site, tree)
    return _run(site, _tree(site, f"{site.work}/source"))


def _run(site: _Site, tree: str) -> str:
    job, order = site.job, site.order
    environments: backend.Environments = BuildEnvironments(
        site.store,
        order.python,
        order.sources,
        job.recipe.constraints,
        package=job.package,
        installer=order.installer,
        log=site.log,
        checkpoint=site.checkpoint,
    )
    if job.recipe.beside is not None:
        environments = Beside(environments, site.store, job.recipe.beside, job.package)
    return backend.build_wheel(
        tree,
        f"{site.work}/wheel",
        editable=job.source.editable,
        package=job.package,
        environments=environments,
        config=job.recipe.settings,
        requires=job.recipe.requires,
        variables={**variables.for_build(os.environ), **dict(job.recipe.variables)},
        log=site.log,
        isolated=job.recipe.beside is None,
        checkpoint=site.checkpoint,
    )


def _in_tree(site: _Site, tree: str) -> str:
    """Run the backend in the tree itself, while nobody else does."""
    while (lock := trees.lock(tree, site.store)) is None:
        site.checkpoint()
        time.sleep(LOOK_SECONDS)
    try:
        return _run(site, tree)
    except BuildError as error:
        if trees.is_writable(tree):
            raise
        hint = "install a copy of it, which is built elsewhere: `envsync sync --no-editable`"
        problem = f"`{tree}` cannot be written to, and its backend may have to: {error.problem}"
        raise BuildError(site.job.package, problem, log=error.log, hint=hint) from error
    finally:
        lock.release()


def _tree(site: _Site, into: str) -> str:
    """Bring the tree to build from to a place of its own, and return the directory of the project in it."""
    job, checkpoint = site.job, site.checkpoint
    source, artifact = job.source, job.artifact
    if source.kind == ARCHIVE:
        assert job.archive is not None
        archive = check(job.archive.path, artifact, checkpoint)  # it is about to be run
        within = source.subdirectory
        return archives.unpack(archive.path, into, name=artifact.name, subdirectory=within, checkpoint=checkpoint)
    if source.kind == GIT:
        git.check_out(
            source,
            into,
            store=site.store,
            package=job.package,
            offline=site.order.offline,
            log=site.log,
            checkpoint=checkpoint,
        )
    else:
        trees.copy(source.place, into, checkpoint)
        copied = job_of(artifact, site.order, beside=job.recipe.beside or (), checkpoint=checkpoint)
        if copied.key != job.key:  # under which others would find it who have the tree as it was
            problem = f"`{source.place}` changed while it was being copied"
            raise BuildError(job.package, problem, hint="once it is at rest: `envsync sync`")
    return archives.within(into, source.subdirectory, artifact.name)


def _keep(site: _Site, wheel: str) -> Built:
    """Keep what was built where it is looked for: in the cache, or if it is an editable, in the environment."""
    job, order = site.job, site.order
    digest = hash_of(wheel)
    if not job.source.editable:
        facts = {"package": job.package, "kind": job.source.kind, **built.facts_of_host(os.environ)}
        name = f"{job.key}/{keys.variant_of(os.path.basename(wheel), order.python)}"
        return built.keep(site.store, name, wheel, digest, log=site.log, facts=facts, trusted=order.trusted)
    place = f"{order.editables}/{job.key}"
    os.makedirs(place, exist_ok=True)
    path = f"{place}/{os.path.basename(wheel)}"
    with open(wheel, "rb") as file:
        atomic.write(path, file.read())
    built.discard(f"{site.store.built}/{job.key}.failed")
    return Built(path, digest)


def as_wheel(artifact: Artifact, found: Built) -> Artifact:
    """Return the artifact of a wheel that was built."""
    from envsync.lockfile.wheels import WheelName

    version = str(WheelName(found.filename).version)
    hashes: Mapping[str, str] = {"sha256": found.sha256}
    return artifact._replace(
        version=version,
        filename=found.filename,
        hashes=hashes,
        alternatives=(),
        locked=(),
        size=None,
        path=found.path,
        url=None,
        missing=None,
        place=None,
        source=None,
    )
