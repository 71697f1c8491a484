"""nox: `venv_backend="envsync"` makes a session's packages those of a lock file.

    from envsync.integrations.nox import register
    register()

    @nox.session(venv_backend="envsync", venv_params=["--lock", "pylock.toml", "--group", "test"])
    def tests(session): ...

The environment is beneath nox's own directory for the session, in which sessions may have files of their own. nox holds
it until it ends: nobody changes it meanwhile, and another nox that wants the same shares it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from envsync.errors import EnvsyncError, InterpreterError
from envsync.system import core


def register() -> None:
    """Make nox know the backend `envsync`. Call it in a noxfile, before the sessions; calling it again is harmless."""
    from nox import virtualenv

    virtualenv.ALL_VENVS["envsync"] = _backend()


def _backend() -> Callable[..., Any]:
    """Return what nox makes an environment with, a kind of its own."""
    from nox.command import CommandFailed
    from nox.logger import logger
    from nox.virtualenv import InterpreterNotFound, ProcessEnv

    from envsync.integrations import entering

    class Environment(ProcessEnv):
        """The environment of a session. `venv_params` are options of `envsync sync`, as on a command line."""

        is_sandboxed = True
        venv_backend = "envsync"

        def __init__(
            self, location: str, interpreter: str | None = None, *, venv_params: Sequence[str] = (), **_: object
        ) -> None:
            self.location = os.path.abspath(location)
            self.interpreter = interpreter or ""
            self.venv_params = list(venv_params)
            super().__init__()

        def create(self) -> bool:
            """Make the environment current and hold it. Returns whether that changed anything.

            :raises CommandFailed: it could not be; it has been said why
            :raises InterpreterNotFound: there is no such Python, which lets nox skip the session
            """
            try:
                hold = entering.enter(
                    self.venv_params, project=os.getcwd(), env=f"{self.location}/env", python=self.interpreter
                )
            except EnvsyncError as error:
                logger.error(f"envsync: {error}\nhint: {error.hint}")
                if isinstance(error, InterpreterError) and self.interpreter:
                    raise InterpreterNotFound(self.interpreter) from error
                raise CommandFailed from error
            self._bin_paths = [f"{hold.result.env}/{core.BIN}"]
            self.env.update({name: value for name, value in hold.activation().items() if name != "PATH"})
            self._reused = hold.result.outcome != "synced"
            return not self._reused

    return Environment
