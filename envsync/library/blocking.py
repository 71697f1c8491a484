"""The library for scripts and task runners: `envsync.sync`, and `envsync.use` for as long as a block runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, TypedDict, Unpack

from envsync.launch import Environment, command, fast_lane, request
from envsync.launch import options as settings
from envsync.launch.progress import Report, quiet
from envsync.leading.result import SyncResult
from envsync.library.syncing import run
from envsync.locks import kind
from envsync.system import core, native, processes


class SyncOptions(TypedDict, total=False):
    """The options of a sync: those of `sync`, which says what they mean, but for the report."""

    env: str | os.PathLike[str] | None
    python: str | os.PathLike[str] | None
    extras: Sequence[str]
    all_extras: bool
    no_extras: Sequence[str]
    groups: Sequence[str]
    no_groups: Sequence[str]
    only_groups: Sequence[str]
    all_groups: bool
    no_default_groups: bool
    dev: bool
    no_dev: bool
    only_dev: bool
    packages: Sequence[str]
    all_packages: bool
    editable: bool
    no_install_project: bool
    no_install_workspace: bool
    no_install_packages: Sequence[str]
    no_build: bool
    no_build_packages: Sequence[str]
    no_binary: bool
    no_binary_packages: Sequence[str]
    no_build_isolation: bool
    no_build_isolation_packages: Sequence[str]
    config_settings: Mapping[str, str]
    build_constraints: Sequence[str]
    build_key: str | os.PathLike[str] | None
    build_with: Literal["pip", "uv"] | None
    locked: bool
    exact: bool
    index_urls: Sequence[str]
    find_links: Sequence[str | os.PathLike[str]]
    mirrors: Mapping[str, str]
    no_index: bool
    offline: bool
    cache_dir: str | os.PathLike[str] | None
    cache_fallback: str | os.PathLike[str] | None
    link_mode: Literal["auto", "clone", "hardlink", "copy", "symlink"] | None
    compile_bytecode: bool
    durable: bool
    allow_empty: bool
    timeout: float | None
    busy: Literal["wait", "fail", "ignore"] | None
    isolated: bool


_ARGUMENTS = {option.argument: option for option in settings.RUN if option.key not in settings.NOT_IN_THE_LIBRARY}


def sync(lock: str | os.PathLike[str], *, report: Report | None = None, **options: Unpack[SyncOptions]) -> SyncResult:
    """Make an environment match its lock file. Waits if another process, on any host, is at it already.

    `ENVSYNC_*` and `[tool.envsync]` beside the lock file count for what is not given here. Can be interrupted by
    KeyboardInterrupt at any time: the environment is then as it was, or the next sync finishes it. Threads may call
    it at once: they exclude each other as processes do. Its options are those of `SyncOptions`, which are those of
    `envsync sync --help`.

    :param env: the environment; default: `.venv` beside the lock file
    :param only_groups: these dependency groups, and neither the project nor what it requires
    :param editable: local trees are installed as links to their sources, where the lock file says so (default)
    :param locked: fail if the lock file is not what the project asks for
    :param exact: remove what the lock file does not name (default)
    :param cache_fallback: where to keep what a cache lacks that cannot be written to; default: this environment alone
    :param link_mode: how files come from the cache: "auto" (default), "clone", "hardlink", "copy" or
        "symlink"
    :param compile_bytecode: compile all modules, once for each Python, in the cache
    :param durable: force what is installed to the disk: a lost node leaves no more than a killed process does
    :param allow_empty: remove all packages if the lock file asks for none, which is refused else
    :param timeout: seconds to wait for others; default: no limit
    :param busy: what to do while commands run in it: "wait" (default), "fail" or "ignore"
    :param isolated: for `use`: what runs within sees no packages but the environment's own
    :param report: is told how far it is, from any thread; default: nobody is
    :raises EnvsyncError: its leaves tell a time-out, a refusal, bad input and a failure apart
    :raises TypeError: an argument is of the wrong type
    """
    return run(resolve(lock, options), report=quiet if report is None else report)


@contextmanager
def use(lock: str | os.PathLike[str], **options: Unpack[SyncOptions]) -> Iterator[Hold]:
    """Make an environment current, and keep it as it is while the block runs: nobody changes it meanwhile.

    The hold is this process's; pass `hold.fd` to a child that may outlive the block (`pass_fds`). Do not sync another
    lock file to the same environment within the block: it would wait for the block's end.

    :param options: as for `sync`
    :raises EnvsyncError: as `sync`
    """
    asked = resolve(lock, options)
    hold = None
    while hold is None:
        hold = enter(asked, run(asked))  # None: somebody else's turn came in between
    try:
        yield hold
    finally:
        hold.release()


for _function in (sync, use):
    _function.__module__ = "envsync"  # what is pickled has the name that stays


class Hold:
    """A current environment that nobody changes before it is released.

    It is neither copied nor pickled. A child that the program forks shares it: it ends when both have let go.

    :ivar result: how it became current
    :ivar fd: the descriptor of its in-use lock; -1 once it is released, and for a read-only environment that has none
    """

    __slots__ = ("_isolated", "_token", "fd", "result")

    def __init__(self, result: SyncResult, fd: int, *, isolated: bool = False) -> None:
        self._isolated = isolated
        self.result = result
        self.fd = fd
        self._token = f"{os.fstat(fd).st_ino if fd >= 0 else 0}:{result.digest}"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Hold is neither copied nor pickled: it is a lock of this process; start children by `hold.popen(...)`"
        )

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return self.result.python

    def variables(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment variables for a child, as `envsync run` sets them.

        :param environ: what they are without the environment; default: `os.environ`
        :raises ValueError: the hold is released, so that anybody may change the environment
        """
        if not self._token:
            raise ValueError(f"the hold on environment `{self.result.env}` is released")
        before = os.environ if environ is None else environ
        return command.environment_variables(before, self.result.env, self._token, isolated=self._isolated)

    def activation(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return only those variables that differ.

        For what adds variables to those that are there: `env_vars` of Ray, `--export` of Slurm. A variable that has to
        go (PYTHONHOME) is empty, which is the same to Python.

        :param environ: what they are where the child starts; default: `os.environ`
        :raises ValueError: as `variables`
        """
        before = dict(os.environ if environ is None else environ)
        after = self.variables(before)
        return {
            **{name: value for name, value in after.items() if before.get(name) != value},
            **dict.fromkeys(before.keys() - after.keys(), ""),
        }

    def popen(
        self,
        args: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        **options: Any,
    ) -> subprocess.Popen[Any]:
        """Start a child in the environment: its commands are found first.

        The environment is in use until the child has ended, also if the hold is released before.

        :param args: as for `subprocess.Popen`
        :param env: what the variables are without the environment; default: `os.environ`
        :param pass_fds: further descriptors to hand on
        :param options: all others of `subprocess.Popen`
        :raises ValueError: as `variables`
        :raises OSError: as `subprocess.Popen`: there is no such command, say
        """
        variables = self.variables(env)
        shared = self.share()
        try:
            passed = [*pass_fds, *([shared] if shared >= 0 else [])]
            return subprocess.Popen(args, env=variables, **{**options, **native.inherit(passed)})
        finally:
            if shared >= 0:
                os.close(shared)

    def share(self) -> int:
        """Return a descriptor of the in-use lock for a child, whose number shells do not use; -1 if there is no lock.

        It is the caller's to close.
        """
        return core.duplicate(self.fd, inherited=False) if self.fd >= 0 else -1

    def release(self) -> None:
        """Let others change the environment. Releasing twice is harmless."""
        self._token = ""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def resolve(lock: str | os.PathLike[str], options: SyncOptions) -> request.Request:
    """Find out what is asked for.

    :raises EnvsyncError: it makes no sense, or the lock file cannot be read
    """
    return request.resolve({**given(lock, options), "quiet": True}, os.environ)


def given(lock: str | os.PathLike[str] | None, options: SyncOptions) -> settings.Settings:
    """Read the arguments of a call as settings.

    :raises TypeError: there is no such option, or it is of the wrong type
    :raises UsageError: a value is not allowed
    """
    values: Mapping[str, Any] = options
    if unknown := values.keys() - _ARGUMENTS.keys():
        raise TypeError(f"unexpected option: {', '.join(sorted(unknown))}")
    read = {_ARGUMENTS[name].key: _value(_ARGUMENTS[name], value) for name, value in values.items()}
    return settings.checked({**read, "lock": None if lock is None else os.fsdecode(lock)})


def _value(option: settings.Option, value: Any) -> object:
    """Read an argument as its option has it.

    :raises TypeError: it cannot be read so
    """
    name = option.argument
    if option.is_table and isinstance(value, Mapping):
        return dict(value)
    if option.kind == settings.LIST:
        return _texts(name, value)
    if option.kind == settings.FLAG:
        if not isinstance(value, bool):
            raise TypeError(f"`{name}` has to be True or False, not {value!r}")
        return value is (name == option.key)
    if option.kind == settings.TEXT and not option.choices:
        return None if value is None else os.fsdecode(value)
    return value


def _texts(name: str, values: Iterable[str | os.PathLike[str]] | None) -> list[str]:
    """Read a list of strings or paths; a single string is none, for it would be read by letters.

    :raises TypeError: it is something else
    """
    if values is None:
        return []
    if isinstance(values, (str, bytes, os.PathLike)):
        raise TypeError(f"`{name}` has to be a list: `{name}=[{values!r}]`")
    listed = list(values)
    if not all(isinstance(value, (str, os.PathLike)) for value in listed):
        raise TypeError(f"`{name}` has to be a list of strings, not {listed!r}")
    return [os.fspath(value) for value in listed]


def enter(asked: request.Request, result: SyncResult) -> Hold | None:
    """Take a hold on an environment that has just been made current; None if it is not any more."""
    environment = Environment(result.env)
    recorded = kind.read(environment) or kind.WORKS
    entry = fast_lane.enter(asked, environment, accept_racy=True, share=recorded.in_use)
    if entry is not None:
        fast_lane.be_named(entry.stamp, processes.own_program(), os.environ)
        return Hold(result, command.let_go(entry.fd), isolated=asked.flag("isolated"))
    if _may_change(environment):
        return None
    from envsync.leading.read_only import share

    return Hold(result, command.let_go(share(environment)), isolated=asked.flag("isolated"))


def _may_change(environment: Environment) -> bool:
    """Tell whether this user may lock and change an environment, or make it, if it is gone."""
    if not os.path.lexists(environment.path):
        return True
    places = (environment.state, environment.lock)
    return all(os.access(place if os.path.lexists(place) else environment.path, os.W_OK) for place in places)
