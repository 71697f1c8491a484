"""Run a program of somebody else to its end, and let nothing of it outlive that, or us.

Backends, compilers and git start whatever they like: a compiler server, a daemon that keeps credentials. What they
inherit, they keep for as long as they live, and a flock is held until its last duplicate is closed. So a program is not
started by us but by a small script (`supervisor`) that we start with three descriptors and no lock: it hears on a pipe
that we are done or dead, by SIGKILL too, and ends whatever the program has left.

Each call is on its own: one supervisor, two pipes, no thread, no signal handler and nothing global, so that a program
that uses the library may call it from any thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from envsync.errors import FilesystemError
from envsync.system import core, native, paths

LOOK_SECONDS = 0.1
"""Between two calls of `checkpoint`."""
END_SECONDS = 10.0
"""How long the supervisor is waited for once it was told to end all: what hangs in the kernel cannot be killed."""
_SUPERVISOR = paths.join(os.path.dirname(__file__), "supervisor.py")


class Run(Protocol):
    """A call such as `run`."""

    def __call__(
        self, argv: Sequence[str], *, cwd: str, env: Mapping[str, str], log: str, checkpoint: Callable[[], object] = ...
    ) -> int: ...


def run(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    log: str,
    checkpoint: Callable[[], object] = lambda: None,
) -> int:
    """Run a program to its end, with nothing to read and without any descriptor of ours.

    Whatever it has started is ended when it ends, and before this returns or raises; so is everything if this process
    dies, however it dies.

    :param argv: the program, found by PATH of `env` if it is not a path, and its arguments
    :param cwd: its directory
    :param env: all its variables
    :param log: the file that what it says is appended to, both stdout and stderr; made if it is missing
    :param checkpoint: called in this thread about every 0.1 s; what it raises ends the program
    :returns: its exit status; if a signal has ended it, minus that signal's number
    :raises FilesystemError: the log cannot be written
    :raises OSError: the program or its directory cannot be used, with the errno and path of that
    """
    if native.HAS_JOBS:
        from envsync.system import windows_jobs

        end: Run = windows_jobs.run  # type: ignore[attr-defined, unused-ignore]  # mypy reads it for Windows alone
        return end(argv, cwd=cwd, env=env, log=log, checkpoint=checkpoint)
    pipes = [*os.pipe(), *os.pipe()]
    listening, telling, hearing, answering = pipes
    try:
        supervisor = _start(listening, answering, log)
        os.close(pipes.pop())  # `answering`: only the supervisor is to have it
        try:
            _ask(telling, _request(argv, cwd, env), hearing, checkpoint)
            answer = _hear(hearing, checkpoint)
        except BaseException:
            _end(telling)
            raise
        finally:
            os.close(pipes.pop(1))  # `telling`
            _wait(supervisor)
    finally:
        for fd in pipes:
            os.close(fd)
    return _status(answer, argv[0], cwd)


def _start(listening: int, answering: int, log: str) -> subprocess.Popen[bytes]:
    try:
        written = core.open_file(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise FilesystemError("write", log, error) from error
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _SUPERVISOR],
            stdin=listening,
            stdout=answering,
            stderr=written,
            cwd="/",
            start_new_session=True,  # what a terminal sends to us is for us to decide about
        )
    finally:
        os.close(written)


def _request(argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> bytes:
    """Say what to run. Not by arguments and variables: those Python would read, and change."""
    asked = {"argv": argv, "cwd": [cwd], "env": [f"{name}={value}" for name, value in env.items()]}
    return json.dumps({key: [os.fsencode(each).decode("latin-1") for each in asked[key]] for key in asked}).encode()


def _ask(telling: int, request: bytes, hearing: int, checkpoint: Callable[[], object]) -> None:
    """Hand over the request, which may be larger than what a pipe takes at once."""
    native.set_nonblocking(telling)
    line = memoryview(request + b"\n")
    while line:
        try:
            line = line[os.write(telling, line) :]
        except BlockingIOError:
            checkpoint()
            if native.readable([hearing], 0.001):
                return  # the supervisor has died


def _hear(hearing: int, checkpoint: Callable[[], object]) -> str:
    """Wait for the supervisor's answer; empty if it has died."""
    answer = b""
    while not answer.endswith(b"\n"):
        checkpoint()
        if not native.readable([hearing], LOOK_SECONDS):
            continue
        chunk = os.read(hearing, 64)
        if not chunk:
            return ""
        answer += chunk
    return answer.decode()


def _end(telling: int) -> None:
    """Say that all is to be ended. To close the pipe is not enough: a child that another thread has forked may have it.

    We have the other end of it ourselves, so that this raises no SIGPIPE, which a program may have left deadly.
    """
    try:
        os.write(telling, b"\n")
    except BlockingIOError:
        pass  # it is full: the supervisor has not even begun


def _wait(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass  # something below it hangs in the kernel; the supervisor goes on trying, with no lock of ours


def _status(answer: str, program: str, cwd: str) -> int:
    word, _, number = answer.partition(" ")
    if word == "failed":
        path = program if os.path.isdir(cwd) else cwd
        raise OSError(int(number), os.strerror(int(number)), path)
    # The supervisor itself was killed, by whoever kills what takes too much memory: the program has died with it.
    return int(number) if word == "exit" else -native.KILL
