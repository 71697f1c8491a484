"""Ray: a plug-in for runtime environments, so that a job, a task or an actor names its lock file.

    RAY_RUNTIME_ENV_PLUGINS='[{"class": "envsync.integrations.ray.Plugin"}]' ray start --head

    ray.init(runtime_env={"envsync": {"lock": "/shared/pylock.toml", "env": "/scratch/envs/{digest}"}})

An agent of Ray's on each node makes runtime environments before it starts workers for them. There it syncs: once a
node, with no worker that has to be registered meanwhile (Ray gives it 60 seconds). What goes wrong, `ray.get` raises.
Workers are then started by `envsync run`: they have the modules of the environment, hold it as long as they run, and
see to it themselves if it was changed or removed since.

What Ray counts are URIs (`ray._private.runtime_env.plugin`, and `ReferenceTable` of its agent). Ours stand for the
options and what the lock file says, so the next job syncs anew if it was changed. Ray counts them when a job begins and
when it ends, by two calls of `get_uris`, which have to say the same though the lock file may have been changed in
between: so they say all that there have been.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray._private.runtime_env.plugin import RuntimeEnvPlugin

import envsync
from envsync.errors import EnvsyncError, UsageError
from envsync.integrations import engines

if TYPE_CHECKING:
    from ray._private.runtime_env.context import RuntimeEnvContext

NAME = "envsync"
SCHEME = "envsync://"
WORKING_DIRECTORY = "RAY_RUNTIME_ENV_CREATE_WORKING_DIR"
"""Where Ray says to a plug-in, while it is asked, where it has put the `working_dir` of a runtime environment."""
_ENVSYNC = (sys.executable, "-P", "-m", "envsync")
_REMOVING = threading.Lock()


class _Made(NamedTuple):
    """What was made for a URI.

    :ivar words: what stands before the worker's command
    :ivar env: its path, if it is named by `{digest}`, and may go with the URI; empty: it stays
    :ivar size: in bytes, as Ray was told it
    """

    words: list[str]
    env: str
    size: int


class Plugin(RuntimeEnvPlugin):
    """The field `envsync` of a `runtime_env`: `lock`, and any options of `envsync.sync`.

    `lock` and `env` are absolute paths on the nodes, or relative to the `working_dir` of the runtime environment.
    """

    name = NAME
    priority = 0  # before those that wait: what Ray says of the working directory is then surely of ours

    def __init__(self) -> None:
        self._uris: dict[str, list[str]] = {}
        """By what is asked for: all URIs that it has had; the last is that of now."""
        self._making: set[str] = set()
        self._made: dict[str, _Made] = {}
        self._refused: dict[str, tuple[weakref.ref[Any], EnvsyncError]] = {}

    @staticmethod
    def validate(runtime_env_dict: Mapping[str, Any]) -> None:
        """Refuse what makes no sense.

        :raises ValueError: it says what, and what to do
        """
        field = runtime_env_dict.get(NAME)
        try:
            _checked(field, has_directory=bool(runtime_env_dict.get("working_dir")))
        except (EnvsyncError, TypeError) as error:
            hint = f"; hint: {error.hint}" if isinstance(error, EnvsyncError) else ""
            raise ValueError(f'runtime_env["{NAME}"]: {error}{hint}') from None
        if others := [name for name in ("pip", "uv", "conda", "py_executable") if runtime_env_dict.get(name)]:
            raise ValueError(
                f'runtime_env has "{NAME}" and "{others[0]}", and a worker has one environment; hint: leave one out'
            )

    def get_uris(self, runtime_env: Mapping[str, Any]) -> list[str]:
        """Return what Ray counts: the URI of now, and those from before the lock file was changed."""
        field = runtime_env.get(NAME)
        if not isinstance(field, Mapping):
            return []
        asked = _asked(runtime_env)
        uri = SCHEME + hashlib.sha256(asked.encode() + _content(field)).hexdigest()
        before = [each for each in self._uris.get(asked, ()) if each in self._made or each in self._making]
        self._uris[asked] = [*(each for each in before if each != uri), uri]
        return list(self._uris[asked])

    async def create(
        self,
        uri: str,
        runtime_env: Mapping[str, Any],
        context: RuntimeEnvContext,  # noqa: ARG002
        logger: logging.Logger,
    ) -> int:
        """Sync. Ray calls it at most three times if it raises, and passes what it raised to `ray.get`.

        :returns: how many bytes Ray may have back; 0: none, for the environment is not named by `{digest}`
        :raises EnvsyncError: with its hint as a note
        """
        if uri != self._uris[_asked(runtime_env)][-1]:
            return 0  # of a lock file that was changed: nobody starts by it any more
        tried, error = self._refused.get(uri, (None, None))
        if tried is not None and tried() is runtime_env and error is not None:
            raise error.with_traceback(None) from None
        self._making.add(uri)
        try:
            made = self._made[uri] = await self._make(runtime_env)
        except EnvsyncError as wrong:
            note = f"hint: {wrong.hint}"
            if note not in getattr(wrong, "__notes__", ()):  # all who share a sync get the same error
                wrong.add_note(note)
            logger.error("envsync: %s; %s", wrong, note)
            if not wrong.retryable:
                self._refused[uri] = (weakref.ref(runtime_env), wrong)
            raise wrong.with_traceback(None) from None
        finally:
            self._making.discard(uri)
        self._refused.pop(uri, None)
        return made.size

    def modify_context(
        self,
        uris: list[str],
        runtime_env: Mapping[str, Any],
        context: RuntimeEnvContext,
        logger: logging.Logger,
    ) -> None:
        """Have workers started by `envsync run`. Ray pastes the text into a command of a shell."""
        made = self._made.get(uris[-1])
        words = made.words if made is not None else _words(runtime_env)
        context.py_executable = shlex.join([*words, "python"])
        logger.info("envsync: workers are started by `%s`", context.py_executable)

    def delete_uri(self, uri: str, logger: logging.Logger) -> int:
        """Have an environment removed that is named by `{digest}`, unless anybody runs in it or syncs it.

        It does not wait for that. Who wants the environment meanwhile does, and makes it anew.

        :returns: what Ray was told that it takes: Ray does not count it any more, also if it stays
        """
        made = self._made.pop(uri, None)
        if made is None:
            return 0
        if made.env and not any(each.env == made.env for each in self._made.values()):
            # In a thread: while this call lasts, Ray's agent makes nothing for other jobs, and it may last.
            threading.Thread(target=_remove, args=(made.env, logger), daemon=True).start()
        return made.size

    async def _make(self, runtime_env: Mapping[str, Any]) -> _Made:
        lock, options = _resolved(runtime_env[NAME], os.environ.get(WORKING_DIRECTORY, ""))
        words = _words(runtime_env)
        result = await envsync.sync_async(lock, **options)
        await _check(result)
        if not any(word.startswith("--env=") and "{digest}" in word for word in words):
            return _Made(words, "", 0)
        return _Made(words, result.env, await _size(result.env))


def _remove(env: str, logger: logging.Logger) -> None:
    """Remove an environment, unless anybody needs it, and say what became of it. One after the other."""
    with _REMOVING:
        done = subprocess.run([*_ENVSYNC, "env", "remove", env], capture_output=True, text=True, check=False)
    logger.info("envsync: %s", (done.stdout + done.stderr).strip())


def _asked(runtime_env: Mapping[str, Any]) -> str:
    """Return what is asked for, apart from what the lock file says."""
    return json.dumps([runtime_env[NAME], runtime_env.get("working_dir")], sort_keys=True, default=str)


def _words(runtime_env: Mapping[str, Any]) -> list[str]:
    lock, options = _resolved(runtime_env[NAME], os.environ.get(WORKING_DIRECTORY, ""))
    return envsync.command(lock, **options)


def _checked(field: object, *, has_directory: bool) -> None:
    """Look at what a user has written, without reading any file.

    :raises EnvsyncError: it makes no sense
    :raises TypeError: an option does not exist, or is of the wrong type
    """
    if not isinstance(field, Mapping) or not isinstance(field.get("lock"), str):
        raise UsageError(
            "it has to name a lock file", hint='`runtime_env={"envsync": {"lock": "/shared/pylock.toml", "env": ...}}`'
        )
    paths = [field["lock"], *([field["env"]] if isinstance(field.get("env"), str) else [])]
    relative = [path for path in paths if not os.path.isabs(path)]
    if relative and not has_directory:
        raise UsageError(
            f"`{relative[0]}` is relative, and a node knows no directory that it could be relative to",
            hint='name an absolute path that all nodes have, or have Ray copy the project: `"working_dir": "."`',
        )
    lock, options = _resolved(field, "/")
    envsync.command(lock, **options)


def _resolved(field: Mapping[str, Any], directory: str) -> tuple[str, dict[str, Any]]:
    """Return the lock file and the options, with absolute paths."""
    options = dict(field)
    lock = os.path.join(directory, options.pop("lock"))
    if isinstance(options.get("env"), str):
        options["env"] = os.path.join(directory, options["env"])
    return lock, options


def _content(field: Mapping[str, Any]) -> bytes:
    """Return what a lock file says; of one in a working directory, Ray's URI of that tells it."""
    lock = str(field.get("lock"))
    if not os.path.isabs(lock):
        return b""
    try:
        with open(lock, "rb") as file:
            return file.read()
    except OSError:
        return b""  # the sync says what is wrong


async def _check(result: envsync.SyncResult) -> None:
    """See that a worker can run in an environment.

    :raises EngineError: there is no Ray in it, or another one than here, or it is of another Python
    """
    found = await engines.look(result.python, "ray")
    if not found.engine:
        raise engines.missing("ray", result.env, ray.__version__)
    if found.engine != ray.__version__:
        raise engines.EngineError(
            f"environment `{result.env}` has Ray {found.engine}, and this node runs Ray {ray.__version__}: workers of "
            "another version cannot work for it",
            hint=f"lock `ray=={ray.__version__}`, or start the nodes with Ray {found.engine}",
        )
    here = platform.python_version()
    if found.python.split(".")[:2] != here.split(".")[:2]:
        raise engines.EngineError(
            f"environment `{result.env}` has Python {found.python}, and this node runs Ray with Python {here}: workers "
            "of another version cannot work for it",
            hint=f'`"python": "{here}"` in `runtime_env["{NAME}"]`, and a lock file that fits it',
        )


async def _size(env: str) -> int:
    """Return how many bytes are free once an environment is removed."""
    child = await asyncio.create_subprocess_exec(
        *(*_ENVSYNC, "env", "show", env, "--json"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await child.communicate()
    if child.returncode:
        return 0
    return int(json.loads(said)["environments"][0].get("free", 0))
