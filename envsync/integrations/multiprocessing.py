"""multiprocessing's spawn, with workers that are in an environment: its Python, its packages, its variables, its hold.

`multiprocessing.set_executable(hold.python)` alone starts the environment's Python, which then takes over the
`sys.path` of the program that started it (`multiprocessing.spawn.prepare`): `sys.prefix` is the environment's, and the
packages are the program's. Here a worker keeps its own `sys.path`. Before it stands what the program's script would
have there if `envsync run` had started it: the directory of the script. So nothing of the program's own packages gets
in, and a worker needs no envsync.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from multiprocessing import process, reduction, resource_tracker, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess, set_spawning_popen

from envsync.errors import InterpreterError
from envsync.library.blocking import Hold

try:
    from multiprocessing import popen_spawn_posix
except (ImportError, AttributeError) as error:  # what it needs of `os` is not there
    raise ImportError(
        "envsync.integrations.multiprocessing is for systems with fork and exec, not for Windows: start workers in the "
        "environment with `hold.popen`, as in `with envsync.use(...) as hold: hold.popen(['python', 'worker.py'])`"
    ) from error

assert sys.platform != "win32"  # said for type checkers


def context(hold: Hold, *, paths: Iterable[str | os.PathLike[str]] | None = None, main: bool = True) -> SpawnContext:
    """Return a context for multiprocessing whose processes run in a held environment.

    For `ProcessPoolExecutor(mp_context=...)`, and for all that takes a context: pools, queues, locks, managers. Each
    process keeps the hold until it ends. Start none after the hold is released: that is a ValueError.

    As ever with spawn, a worker imports the program's main module anew, under the name `__mp_main__`: what that imports
    has to be in the environment, or behind `if __name__ == "__main__"`, as envsync itself. A worker that cannot import
    it ends with a traceback on standard error. ProcessPoolExecutor then raises BrokenProcessPool, whereas
    `multiprocessing.Pool` starts another one, for ever.

    :param paths: what stands first in the workers' `sys.path`; default: the directory of the program's script, or the
        working directory where there is none, as Python itself has it
    :param main: workers import the program's main module; if not, what they are given has to be of other modules
    :raises InterpreterError: the environment has another version of Python than the program
    :raises TypeError: what is given is no hold
    :raises ValueError: the hold is released
    """
    if not isinstance(hold, Hold):
        raise TypeError(f"a hold is needed, not {hold!r}: `with envsync.use(...) as hold:`")
    hold.variables()  # raises if it is released
    env = hold.result.env
    if not os.path.isdir(sysconfig.get_path("purelib", "venv", {"base": env})):
        version = "{}.{}".format(*sys.version_info)
        raise InterpreterError(
            f"the Python of environment `{env}` is not of version {version}, which this program runs in: "
            "multiprocessing passes objects between processes of one version only",
            hint=f"`envsync sync --python {version}` makes it one of that version; in `envsync.use`, give `python=`",
        )
    first = _first_paths() if paths is None else [os.path.abspath(path) for path in paths]
    return _Context(hold, first, main=main)


class _Context(SpawnContext):
    """A context whose `Process` is a class of its own, which knows how its workers start."""

    def __init__(self, hold: Hold, paths: list[str], *, main: bool) -> None:
        class Process(SpawnProcess):
            @staticmethod
            def _Popen(process_obj: process.BaseProcess) -> _Worker:  # noqa: N802  # multiprocessing's name
                return _Worker(process_obj, Process, hold, paths, main=main)

        self.Process = Process  # type: ignore[misc]  # who asks a context for it asks an instance


class _Worker(popen_spawn_posix.Popen):
    """A process that has been started: multiprocessing's own, but for what it runs and what it is sent.

    What is sent names nothing of envsync.
    """

    _fds: list[int]

    def __init__(
        self, process_obj: process.BaseProcess, ours: type[SpawnProcess], hold: Hold, paths: list[str], *, main: bool
    ) -> None:
        self._hold = hold
        self._paths = paths
        self._main = main
        self._ours = ours
        super().__init__(process_obj)

    def _launch(self, process_obj: process.BaseProcess) -> None:
        """Start the process and send it what it is to do (called once, by `__init__`).

        :raises ValueError: the hold is released
        :raises OSError: it could not be started
        """
        tracker = resource_tracker.getfd()
        assert tracker is not None
        sent = self._sent(process_obj)
        # The first pipe is at its end once the process has ended. By the second it learns what to do, and that we have.
        self.sentinel, alive = os.pipe()
        order, orders = os.pipe()
        self.finalizer = util.Finalize(self, util.close_fds, (self.sentinel, orders))  # type: ignore[attr-defined]
        try:
            begin = f"spawn_main(tracker_fd={tracker}, pipe_handle={order})"
            code = (
                f"import sys; sys.path[:] = {self._paths!a} + [path for path in sys.path if path]; "
                f"from multiprocessing.spawn import spawn_main; {begin}"
            )
            flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            words = [self._hold.python, *flags, "-c", code, "--multiprocessing-fork"]
            self._child = self._hold.popen(words, pass_fds=[*self._fds, tracker, alive, order])
            self.pid = self._child.pid
        finally:
            os.close(alive)
            os.close(order)
        with open(orders, "wb", closefd=False) as stream:
            stream.write(sent)

    def _sent(self, process_obj: process.BaseProcess) -> bytes:
        """Return what a process reads first: how things are here, without our `sys.path`, and itself."""
        here = spawn.get_preparation_data(process_obj.name)
        del here["sys_path"]
        if not self._main:
            for name in ("init_main_from_name", "init_main_from_path"):
                here.pop(name, None)
        itself = process_obj
        if type(process_obj) is self._ours:
            itself = SpawnProcess.__new__(SpawnProcess)
            vars(itself).update(vars(process_obj))
        stream = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(here, stream)
            reduction.dump(itself, stream)
        finally:
            set_spawning_popen(None)
        return stream.getvalue()

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit status, negative for a signal; None while it runs, unless `flag` is 0, which waits."""
        if self.returncode is None:
            self.returncode = self._child.poll() if flag & os.WNOHANG else self._child.wait()
        return self.returncode


def _first_paths() -> list[str]:
    """Return what Python has put first into `sys.path` of a program: where its script is, or where it was started."""
    if sys.flags.safe_path:
        return []
    main = sys.modules["__main__"]
    specification = getattr(main, "__spec__", None)
    script = getattr(main, "__file__", None)
    if script and (specification is None or specification.name == "__main__"):
        return [os.path.dirname(os.path.realpath(script))]
    started = process.ORIGINAL_DIR  # type: ignore[attr-defined]
    return [started] if started else []
