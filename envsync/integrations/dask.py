"""Dask: a nanny that runs in an environment, with its worker, for `LocalCluster` and other clusters of this machine.

    LocalCluster(processes=True, worker_class=Nanny, envsync={"lock": "pylock.toml", "env": ".venv"})

Dask's own nanny starts workers by multiprocessing, which gives them the `sys.path` of the program. So another Python
beneath it does not help. Here the nanny itself is a process that `envsync run` starts: it and all its workers, also
those that it starts anew, have the modules of the environment, and hold it as long as they run. The program and the
environment share nothing but Dask's protocol.

Where `dask worker` is started by other programs (dask-jobqueue, SSHCluster, a shell), the words of `envsync.command`
do the same: docs/runners.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import dask.config
import distributed
from distributed.core import Status, rpc
from distributed.deploy.spec import ProcessInterface
from distributed.security import Security

import envsync as library
from envsync.errors import EnvsyncError, UsageError
from envsync.integrations import engines

CLOSE_SECONDS = 10.0
"""How long a nanny may take to close its worker before it is killed."""
LOOK_SECONDS = 0.1
"""Between two looks whether the worker has come."""

_log = logging.getLogger("distributed.envsync")  # Dask shows what its own loggers say


class Nanny(ProcessInterface):
    """A Dask nanny and its worker, as a process in an environment.

    It syncs first, once for all nannies of the program that want the same at a time. If the sync fails, so does the
    start: `LocalCluster(...)` raises the error, with the hint as its note. `cluster.scale(...)` returns before that, as
    ever in Dask: then the reason is in the log, on standard error.

    The nanny has a session of its own: an interrupt from the keyboard goes to the program alone. It ends when the
    scheduler does.

    :param scheduler: its address
    :param envsync: `lock`, and any options of `envsync.sync`
    :param name: of the worker
    :param options: what `distributed.Nanny` takes, as far as JSON has it
    """

    def __init__(
        self, scheduler: str, *, envsync: Mapping[str, Any], name: int | str | None = None, **options: Any
    ) -> None:
        super().__init__()
        sync = dict(envsync)
        try:
            self._lock = sync.pop("lock")
        except KeyError:
            raise UsageError(
                "`envsync` says no lock file", hint='`LocalCluster(..., envsync={"lock": "pylock.toml"})`'
            ) from None
        if scheduler.startswith("inproc:"):
            raise UsageError(
                f"the scheduler at `{scheduler}` cannot be reached from another process",
                hint="`LocalCluster(processes=True, worker_class=Nanny, ...)`",
            )
        self.name = name
        self._sync = sync
        self._words = library.command(self._lock, **self._sync)  # in the directory and with the variables of now
        self._scheduler = scheduler
        self._security = options.pop("security", None) or Security()
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Sync, start the nanny, and return when its worker has come to the scheduler.

        :raises EnvsyncError: the sync failed, or the environment has no `distributed`; nothing is started
        :raises RuntimeError: the nanny ended before its worker had come; what it said is on standard error
        """
        try:
            result = await library.sync_async(self._lock, **self._sync)
            if not (await engines.look(result.python, "distributed")).engine:
                raise engines.missing("distributed", result.env, distributed.__version__)
            await self._spawn()
            await self._until_there()
        except BaseException as error:
            await self.close()
            self.status = Status.failed
            if isinstance(error, EnvsyncError):
                note = f"hint: {error.hint}"
                if note not in getattr(error, "__notes__", ()):  # all who share a sync get the same error
                    error.add_note(note)
                _log.error("worker %s was not started: %s; %s", self.name, error, note)
            elif isinstance(error, Exception):
                _log.error("worker %s was not started: %s", self.name, error)
            raise
        await super().start()

    async def close(self) -> None:
        """End the nanny, which ends its worker; kill it if that takes ten seconds. The worker does not outlive it."""
        process = self._process
        if process is not None and process.returncode is None:
            _end(process.terminate)
            try:
                await asyncio.wait_for(process.wait(), CLOSE_SECONDS)
            except TimeoutError:
                _end(process.kill)
                await process.wait()
        self._process = None
        await super().close()

    async def _spawn(self) -> None:
        with tempfile.TemporaryFile("w+") as specification:
            self._write(specification)
            self._process = await asyncio.create_subprocess_exec(
                *(*self._words, "python", "-m", "distributed.cli.dask_spec"),
                *(self._scheduler, "--spec-file", "/dev/stdin"),
                stdin=specification,  # keys of TLS are in it, and everybody can read a command line
                env={**os.environ, "DASK_INTERNAL_INHERIT_CONFIG": dask.config.serialize(dask.config.global_config)},
                start_new_session=True,
            )

    def _write(self, file: IO[str]) -> None:
        """Write what is to be started.

        :raises UsageError: an option cannot be written
        """
        options = {**self._options, "name": self.name, "security": _as_json(self._security)}
        try:
            json.dump({"cls": "distributed.Nanny", "opts": options}, file)
        except TypeError as error:
            raise UsageError(
                f"an option of the worker cannot be sent to another process as JSON: {error}",
                hint="name it by text or numbers, or set it in Dask's configuration: `dask config list` shows that",
            ) from None
        file.flush()
        file.seek(0)

    async def _until_there(self) -> None:
        """Wait until the scheduler knows the worker."""
        assert self._process is not None
        ended = asyncio.ensure_future(self._process.wait())
        try:
            async with rpc(self._scheduler, connection_args=self._security.get_connection_args("client")) as scheduler:
                while not ended.done():
                    known = (await scheduler.identity())["workers"].values()
                    if any(worker["name"] == self.name for worker in known):
                        return
                    await asyncio.wait({ended}, timeout=LOOK_SECONDS)
        finally:
            ended.cancel()
        raise RuntimeError(
            f"the worker's process ended with status {self._process.returncode} before it had come to the scheduler; "
            "what it said is on standard error"
        )


def _as_json(security: Security) -> dict[str, Any]:
    """Return the arguments that make such an object, in what JSON has."""
    said = {name: getattr(security, name) for name in Security.__slots__}
    return {name: value for name, value in said.items() if value is not None}


def _end(end: Callable[[], None]) -> None:
    try:
        end()
    except ProcessLookupError:
        pass  # it has ended
