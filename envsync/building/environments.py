"""Build environments: virtual environments of the target's Python with what a build requires, made once and kept.

    <cache>/v1/build-environments/<key>/<number>/    an environment
    <cache>/v1/build-environments/<key>/record       which of them counts, since when, and what is in it

The key has the requirements, constraints, indexes (without passwords), the Python, and whose it is: what is in there
runs when something is built, so one takes one's own or root's, and no other. pip resolves what is required, a
dependency of ours that installs into another environment (`pip_program`); or uv where that is asked for. Neither is
run where nothing is required.

The record is written last, so what a killed making leaves is a directory that no record names; the next making removes
it once it is a day old. An environment is made anew when it is 30 days old, since requirements mean the newest, unless
there is no network to be used; also if it was changed, as by a purge of old files: size and number of its files are in
the record. The old one stays for a day, for those who build with it. One lock for each key, so that it is made once;
without one (no flock) two are made, and the last counts.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from envsync.building import built, pip_program, supervised, variables
from envsync.building.supervised import Run
from envsync.errors import BuildError, FilesystemError, LockingError
from envsync.errors.redact import redacted
from envsync.lockfile.sources import Sources, as_url
from envsync.locks import flock
from envsync.locks.flock import Flock
from envsync.python.facts import Interpreter
from envsync.python.interpreter import beneath
from envsync.python.venv import is_plain, pattern_of, run_venv
from envsync.store.store import Store
from envsync.store.trash import LEFTOVER_SECONDS
from envsync.system import atomic, core, groups, native, paths, processes, records

FORMAT = 1
KIND = "build-environments"
RECORD = "record"
OLD_SECONDS = 30 * 86400
WAIT_SECONDS = 0.1
LINES = 20
"""Of what an installer has said last, in the message of the error."""
LENGTH = 300
"""Of each of these lines, in characters."""
_PLACES = ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "DEFAULT_INDEX", "INDEX")
"""What of the variables of pip and uv decides what comes out."""


class BuildEnvironment(NamedTuple):
    """An environment to build in, as PyPA's `build` takes it (`build.env.IsolatedEnv`)."""

    path: str
    versions: Mapping[str, str]
    """What is installed in it: normalized name → version."""

    @property
    def python_executable(self) -> str:
        return f"{self.path}/{core.PYTHON}"

    def make_extra_environ(self) -> Mapping[str, str]:
        """Return the variables by which its programs are found."""
        return {"PATH": f"{self.path}/{core.BIN}{os.pathsep}{os.environ.get('PATH') or os.defpath}"}

    def has(self, requirement: Requirement) -> bool:
        """Tell whether it has what is required; no if that cannot be told."""
        version = self.versions.get(canonicalize_name(requirement.name))
        if version is None or requirement.url or requirement.extras:
            return False
        try:
            return requirement.specifier.contains(version, prereleases=True)
        except InvalidVersion:
            return False


class BuildEnvironments:
    """Gives build environments for one build.

    :param store: the cache that they are kept in
    :param python: the target; if that is in an environment, what is beneath it is taken
    :param sources: where packages may come from, besides what pip's own configuration says
    :param constraints: on what is installed
    :param package: whose build it is, for messages
    :param installer: `pip`, or `uv` if that is there
    :param log: the file that what the installer says is appended to, without passwords
    :param checkpoint: called about every 0.1 s; what it raises ends what is going on
    """

    def __init__(
        self,
        store: Store,
        python: Interpreter,
        sources: Sources,
        constraints: Sequence[str] = (),
        *,
        package: str,
        installer: str = "pip",
        log: str,
        checkpoint: Callable[[], object] = lambda: None,
        run: Run = supervised.run,
    ) -> None:
        self.store = store
        self.python = beneath(python, store.root)  # so that all environments made of one Python share what is kept
        self.sources = sources
        self.constraints = constraints
        self.package = package
        self.installer = installer
        self.log = log
        self.checkpoint = checkpoint
        self.run = run
        self.given: list[BuildEnvironment] = []

    def of(self, requirements: Iterable[str]) -> BuildEnvironment:
        """Return an environment that has what is required: one that was given already, one that is kept, or a new one.

        :raises BuildError: a requirement is none, or cannot be had
        :raises FilesystemError: the cache cannot be written
        """
        wanted = self._wanted(requirements)
        found = next((each for each in self.given if all(map(each.has, wanted))), None)
        if found is None:
            found = self._find(wanted) or self._make_in_turn(wanted)
            self.given.append(found)
        return found

    def _wanted(self, texts: Iterable[str]) -> list[Requirement]:
        """Parse requirements, leave out those that are for other Pythons, and put them in order."""
        found = {}
        for text in texts:
            try:
                requirement = Requirement(text)
            except InvalidRequirement as error:
                problem = f"its build requires `{redacted(text)}`, which is no requirement ({error})"
                raise BuildError(self.package, problem) from error
            if requirement.marker is None or requirement.marker.evaluate({**self.python.markers, "extra": ""}):
                requirement.marker = None
                requirement.name = canonicalize_name(requirement.name)
                found[str(requirement)] = requirement
        return [found[text] for text in sorted(found)]

    def _places(self, wanted: Sequence[Requirement]) -> Iterator[str]:
        """Yield the directories that an environment may be in: one's own, where one is made, then root's."""
        for user in dict.fromkeys((processes.user(), 0)):
            for root in filter(None, (self.store.root, self.store.below)):
                yield f"{root}/v1/{KIND}/{self._key(wanted, user)}"

    def _key(self, wanted: Sequence[Requirement], user: int) -> str:
        sources = self.sources
        urls = (sources.index_urls, sources.extra_index_urls, sources.find_links)
        tools = [os.environ.get(f"{tool}_{name}", "") for tool in ("PIP", "UV") for name in _PLACES]
        places = [redacted(place) for place in (*(url for some in urls for url in some), *tools)]
        whole = [FORMAT, user, *map(str, wanted)], sorted(self.constraints), places, sources.no_index, self.installer
        python = self.python
        it = [paths.realpath(python.executable), *python.identity, python.version, python.fingerprint]
        return sha256(json.dumps([*whole, *it]).encode()).hexdigest()

    def _find(self, wanted: Sequence[Requirement]) -> BuildEnvironment | None:
        """Return a kept environment that may be used."""
        fleeting = any(requirement.url for requirement in wanted)  # a file or a branch may be another one by now
        oldest = 0.0 if self.sources.offline else time.time() - OLD_SECONDS
        for place in self._places(wanted):
            value = records.load(f"{place}/{RECORD}")
            path = f"{place}/{records.text(value, 'directory')}"
            if not value or records.number(value, "made") < oldest or (fleeting and not self.sources.offline):
                continue
            installed = value.get("versions")
            if not (isinstance(installed, dict) and _is_ours(place, f"{place}/{RECORD}", path)):
                continue
            if list(_measure(path)) == value.get("size"):
                built.touch(place)
                return BuildEnvironment(path, installed)
        return None

    def _make_in_turn(self, wanted: Sequence[Requirement]) -> BuildEnvironment:
        """Make an environment, unless somebody else has done so meanwhile."""
        place = next(self._places(wanted))
        lock = self._lock(os.path.basename(place))
        try:
            return self._find(wanted) or self._make(place, wanted)
        finally:
            if lock is not None:
                lock.release()

    def _lock(self, key: str) -> Flock | None:
        """Wait for the lock of a key; None if there are no locks here."""
        self.store.prepare()
        path = f"{self.store.locks}/{key}"
        groups.make_lock_file(self.store.root, path)
        try:
            while (held := flock.acquire_nowait(path, shared=False)) is None:
                self.checkpoint()
                time.sleep(WAIT_SECONDS)
        except (LockingError, FilesystemError):
            return None
        return held

    def _make(self, place: str, wanted: Sequence[Requirement]) -> BuildEnvironment:
        try:
            atomic.make_directory(place)
        except OSError as error:
            raise FilesystemError("create", place, error) from error
        _remove_old(place)
        path = f"{place}/{os.urandom(4).hex()}"
        try:
            os.mkdir(path, 0o700)  # nobody else may write there while it is filled, nor afterwards
            self._fill(path, wanted)
            groups.grant_tree(path, groups.bits(self.store.root) & ~stat.S_IWGRP)
            groups.withhold_tree(path)
            native.chmod(path, 0o755)
        except BaseException:
            atomic.discard_tree(path)
            raise
        found = BuildEnvironment(
            path, _versions({f"{path}/{self.python.layout[each]}" for each in ("purelib", "platlib")})
        )
        size = list(_measure(path))
        value = {"directory": os.path.basename(path), "made": time.time(), "size": size, "versions": found.versions}
        groups.grant(place, groups.bits(self.store.root))
        content = records.dump({**value, "requires": [redacted(str(each)) for each in wanted]})
        atomic.write(f"{place}/{RECORD}", content, mode=0o644)
        return found

    def _fill(self, path: str, wanted: Sequence[Requirement]) -> None:
        pattern = pattern_of(self.python, self.store.root, -1) if is_plain(path) else None
        if pattern is None:
            run_venv(self.python.executable, path, -1)
        else:
            pattern.render(path)
        if wanted:
            self._install(path, wanted)

    def _install(self, path: str, wanted: Sequence[Requirement]) -> None:
        """Have an installer put into an environment what is required."""
        self._refuse_if_offline(wanted)
        staged = self.store.staging("requirements")
        os.mkdir(staged, 0o700)  # requirements may have passwords
        try:
            for name, lines in (("requirements", map(str, wanted)), ("constraints", self.constraints)):
                with open(f"{staged}/{name}.txt", "w", encoding="utf-8") as file:
                    file.writelines(f"{line}\n" for line in lines)
            words, environ = self._command(f"{path}/{core.PYTHON}", staged)
            try:
                status = self.run(words, cwd=staged, env=environ, log=f"{staged}/log", checkpoint=self.checkpoint)
            finally:
                said = self._keep_log(f"{staged}/log", words)
            if status:
                self._refuse(said)
        finally:
            atomic.discard_tree(staged)

    def _refuse_if_offline(self, wanted: Sequence[Requirement]) -> None:
        sources = self.sources
        if sources.offline and not (sources.directories or sources.pages or sources.indexes):
            names = ", ".join(f"`{redacted(str(each))}`" for each in wanted)
            raise BuildError(
                self.package,
                f"its build requires {names}, and no such build environment is kept in `{self.store.root}`",
                hint="prepare it where there is a network, with the same cache: `envsync sync --no-offline`",
            )

    def _refuse(self, said: str) -> None:
        lines = "\n".join(map(_short, said.splitlines()[-LINES:]))
        problem = f"{self.installer} cannot install what its build requires; it says:\n{lines}"
        raise BuildError(self.package, problem, log=self.log)

    def _keep_log(self, path: str, words: Sequence[str]) -> str:
        """Append what an installer has said to the log, without passwords, and return it."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                said = redacted(file.read())
        except FileNotFoundError:
            said = ""
        try:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"$ {shlex.join(words)}\n{said}")
        except OSError as error:
            raise FilesystemError("write", self.log, error) from error
        return said

    def _command(self, python: str, staged: str) -> tuple[list[str], dict[str, str]]:
        """Return the installer's words and variables. URLs are among the latter, which other users do not see."""
        files = f"{staged}/requirements.txt", f"{staged}/constraints.txt"
        if self.installer == "uv":
            return self._uv(python, *files)
        environ = variables.for_installer(os.environ)
        too_new = pip_program.is_too_new_for(self.python.version)
        words = self._its_own_pip(python, staged, environ) if too_new else pip_program.ours(python)
        words += ["install", "--no-input", "--no-compile"]
        words += ["--no-warn-script-location", "--disable-pip-version-check", "--progress-bar", "off"]
        words += ["--build-constraint", files[1]] if self.constraints and not too_new else []
        # What constrains a project does not constrain what builds it, though pip's configuration may say so.
        environ["PIP_CONSTRAINT"] = files[1] if self.constraints else ""
        return [*words, "-r", files[0]], _with_places(environ, self.sources)

    def _its_own_pip(self, python: str, staged: str, environ: Mapping[str, str]) -> list[str]:
        def run(words: Sequence[str], environ: Mapping[str, str]) -> int:
            return self.run(words, cwd=staged, env=environ, log=f"{staged}/log", checkpoint=self.checkpoint)

        words = pip_program.its_own(python, staged, environ, run)
        if words is None:
            version = self.python.version
            problem = f"the pip beside envsync is too new for Python {version}, which brings none in `ensurepip`"
            hint = "install uv, and let it install what builds require: `envsync sync --build-with uv`"
            self._keep_log(f"{staged}/log", [python, "-m", "ensurepip"])
            raise BuildError(self.package, problem, log=self.log, hint=hint)
        return words

    def _uv(self, python: str, required: str, constraints: str) -> tuple[list[str], dict[str, str]]:
        found = shutil.which("uv")
        if found is None:
            hint = "install uv, or have pip install what builds require: `envsync sync --build-with pip`"
            raise BuildError(self.package, "uv is to install what its build requires, and is not found", hint=hint)
        words = [found, "pip", "install", "--python", python, "--no-progress", "-r", required]
        words += ["-c", constraints, "--build-constraints", constraints] if self.constraints else []
        words += ["--no-index"] if self.sources.no_index else []
        words += ["--offline"] if self.sources.offline else []
        return words, _with_places_for_uv(variables.for_installer(os.environ), self.sources)


def _short(line: str) -> str:
    """Leave out the middle of a line in which pip lists each version that there has ever been."""
    return line if len(line) <= LENGTH else f"{line[: LENGTH // 2]} [...] {line[-LENGTH // 2 :]}"


def _with_places(environ: dict[str, str], sources: Sources) -> dict[str, str]:
    """Say to pip where packages are, besides what it has been told by others."""

    def add(name: str, values: Iterable[str]) -> None:
        environ[name] = " ".join(filter(None, (environ.get(name, ""), *values)))

    if sources.offline:
        for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
            environ.pop(name, None)
        environ["PIP_CONFIG_FILE"] = os.devnull
    indexes = list(sources.indexes)
    if sources.index_urls and indexes:
        environ["PIP_INDEX_URL"], environ["PIP_EXTRA_INDEX_URL"] = indexes.pop(0), ""
    elif sources.no_index or (sources.offline and not indexes):
        environ["PIP_NO_INDEX"] = "1"
    add("PIP_EXTRA_INDEX_URL", indexes)
    add("PIP_FIND_LINKS", (*map(as_url, sources.directories), *sources.pages))
    add("PIP_TRUSTED_HOST", sources.trusted_hosts)
    return {name: value for name, value in environ.items() if value or name == "PIP_CONSTRAINT"}


def _with_places_for_uv(environ: dict[str, str], sources: Sources) -> dict[str, str]:
    """Say the same to uv."""

    def add(name: str, values: Iterable[str], between: str = " ") -> None:
        environ[name] = between.join(filter(None, (environ.get(name, ""), *values)))

    indexes = list(sources.indexes)
    if sources.index_urls and indexes:
        environ["UV_DEFAULT_INDEX"] = indexes.pop(0)
    add("UV_INDEX", indexes)
    add("UV_FIND_LINKS", (*sources.directories, *sources.pages), ",")
    add("UV_INSECURE_HOST", sources.trusted_hosts)
    return {name: value for name, value in environ.items() if value}


def _is_ours(place: str, record: str, path: str) -> bool:
    """Tell whether all of it belongs to oneself or to root, and nobody else may write to it: it is about to be run."""
    try:
        known = [os.lstat(each) for each in (record, path, place)]
    except OSError:
        return False
    # Others may list what there is, and remove it, where a group shares the cache.
    return all(each.st_uid in (processes.user(), 0) for each in known) and not any(
        each.st_mode & native.BY_OTHERS for each in known[:2]
    )


def _measure(path: str) -> tuple[int, int]:
    """Return the number of an environment's files and their bytes, without bytecode, which comes by itself."""
    files = total = 0
    for directory, names, entries in os.walk(path):
        names[:] = [name for name in names if name != "__pycache__"]
        for name in entries:
            try:
                total += os.lstat(f"{directory}/{name}").st_size
            except OSError:
                continue  # then the number does not fit either
            files += 1
    return files, total


def _versions(sites: Iterable[str]) -> dict[str, str]:
    from importlib.metadata import distributions

    named = {str(found.metadata["Name"]): found.version for found in distributions(path=[*sites])}
    return {canonicalize_name(name): version for name, version in named.items()}


def _remove_old(place: str) -> None:
    """Remove environments that do not count any more, and what killed makings left, if nobody builds with them."""
    kept = records.text(records.load(f"{place}/{RECORD}"), "directory")
    for name in os.listdir(place):
        path = f"{place}/{name}"
        try:
            if name not in (RECORD, kept) and os.lstat(path).st_mtime < time.time() - LEFTOVER_SECONDS:
                atomic.discard_tree(path)
        except OSError:
            continue  # somebody else has removed it
