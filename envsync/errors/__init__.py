"""What can go wrong, grouped by who must act.

Every error of envsync derives from `EnvsyncError`. A leaf holds fields and builds its own text: lower case,
what failed, the path in backticks, the cause; `hint` names what to do. Neither holds what is secret in a URL.
`exit_code` is what the command line exits with under `run` and `sync` (DESIGN: 124 a wait timed out or was refused,
125 any other failure of ours, 126 and 127 as a shell says them).

Imports nothing of what stands above, and no library: waiters raise these. Start reading here; `hints` has what helps,
`redact` what may be shown.
"""

from __future__ import annotations

import errno

from envsync.errors.redact import redacted

SDIST_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")
"""Of archives of sources."""


class EnvsyncError(Exception):
    """Anything that envsync refuses or fails to do.

    :param message: one sentence, lower case, that names the path or package and the cause
    :param hint: what to do about it; default: what usually helps where such an error is met
    :param retryable: default: what is usual for its class
    :ivar retryable: the same call may succeed later, though nobody changes what it asks for: a server does not answer,
        a disk is full, a wait took too long. What a lock file, a wheel or an option says wrong stays wrong
    """

    exit_code = 125
    retryable = False
    _usual = "STATUS"
    """What usually helps, by its name in `envsync.errors.hints`."""

    def __init__(self, message: str, *, hint: str | None = None, retryable: bool | None = None) -> None:
        super().__init__(redacted(message))
        self.message = message
        self._hint = hint
        if retryable is not None:
            self.retryable = retryable

    @property
    def hint(self) -> str:
        """What to do about it: a sentence with a command that can be run as it stands."""
        if self._hint is None:
            self._hint = self._usual_hint()
        return self._hint

    @hint.setter
    def hint(self, hint: str | None) -> None:
        self._hint = hint

    def _usual_hint(self) -> str:
        """Return what usually helps where such an error is met."""
        from envsync.errors import hints

        return str(getattr(hints, self._usual))

    def __setattr__(self, name: str, value: object) -> None:
        """Keep what is secret in a URL out of every field: programs log and store errors."""
        super().__setattr__(name, redacted(value) if isinstance(value, str) else value)

    def __reduce__(self) -> tuple[object, ...]:
        """Be copied and pickled with all fields, whatever a class is made from: task runners move errors so."""
        return (_remake, (type(self), self.args), self.__dict__.copy())

    def __str__(self) -> str:
        return self.message


def _remake(kind: type[EnvsyncError], args: tuple[object, ...]) -> EnvsyncError:
    """Make an error without its own `__init__`; the fields follow."""
    error = kind.__new__(kind)
    error.args = args
    return error


# The caller must act.


class UsageError(EnvsyncError):
    """The command line, an `ENVSYNC_*` variable or `[tool.envsync]` asks for something that does not exist."""

    _usual = "HELP"


class LockFileError(EnvsyncError):
    """A lock file cannot be used: it is missing, malformed, not pinned, or does not fit this Python.

    :param path: the lock file; empty if none was named
    :param problem: what is wrong with it, naming the package and line where there is one
    """

    def __init__(self, path: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"cannot use lock file `{path}`: {problem}" if path else problem, hint=hint)
        self.path = path
        self.problem = problem

    def _usual_hint(self) -> str:
        from envsync.errors import hints

        return hints.of_lock_file(self.path)


class NoWheelError(LockFileError):
    """A package of the lock file has no wheel that fits the target Python, or none that can be reached."""


# The operator must act.


class InterpreterError(EnvsyncError):
    """No Python that fits was found, or the one found cannot be run."""

    _usual = "ANOTHER_PYTHON"


class UnsupportedPythonError(InterpreterError):
    """A Python that runs, and that envsync cannot make environments for."""


class EnvironmentRefusedError(EnvsyncError):
    """The environment directory is not one that envsync may change.

    :param path: the environment
    :param problem: why it is left alone
    """

    _usual = "ELSEWHERE"

    def __init__(self, path: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"refusing to change environment `{path}`: {problem}", hint=hint)
        self.path = path
        self.problem = problem


class NoEnvironmentError(EnvsyncError):
    """There is no environment where one was to be looked at.

    :param path: where it is not
    """

    _usual = "MAKE"

    def __init__(self, path: str, *, hint: str | None = None) -> None:
        super().__init__(f"there is no environment `{path}`", hint=hint)
        self.path = path


class ConflictError(EnvsyncError):
    """Files that no distribution owns are where the target wants its own; nothing has been changed.

    :param path: the environment
    :param files: the files in the way, relative to it
    """

    def __init__(self, path: str, files: tuple[str, ...]) -> None:
        shown = ", ".join(f"`{file}`" for file in files[:5])
        more = f" and {len(files) - 5} more" if len(files) > 5 else ""
        super().__init__(
            f"environment `{path}` holds files that no distribution owns where the lock file wants its own: "
            f"{shown}{more}",
            hint="`envsync check` names them all; move them away, or have an environment made elsewhere: "
            "`envsync sync --env '.venvs/{digest}'`",
        )
        self.path = path
        self.files = files


_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "ENOMEM", "EMFILE", "ENFILE", "EAGAIN", "EINTR", "EBUSY", "ETXTBSY"),
        *("EIO", "ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOTCONN", "ENOLCK"),
    )
    if hasattr(errno, name)
)
"""What an operating system may answer differently later: room, limits, and filesystems on a network."""


class FilesystemError(EnvsyncError):
    """The operating system refused an operation: no space, no permission, an I/O error.

    :param doing: what was being done, as in "write"
    :param path: on which path
    :param cause: the operating system's answer
    """

    def __init__(self, doing: str, path: str, cause: OSError, *, hint: str | None = None) -> None:
        text = f"cannot {doing} `{path}`: {cause.strerror or cause}"
        super().__init__(text, hint=hint, retryable=cause.errno in _PASSING)
        self.path = path
        self.errno = cause.errno

    @property
    def is_refusal(self) -> bool:
        """The place is read-only, or not ours to write to."""
        return self.errno in (errno.EROFS, errno.EACCES, errno.EPERM)

    def _usual_hint(self) -> str:
        from envsync.errors import hints

        return hints.of_filesystem(self.path, self.errno, is_refusal=self.is_refusal)


class LockingError(EnvsyncError):
    """No lock that works can be had where one is needed, so nothing was changed."""

    _usual = "WHAT_LOCKS_DO"


class WaitTimeoutError(EnvsyncError):
    """The time allowed for waiting on others ran out; nothing was changed."""

    _usual = "WHO_IS_WAITED_FOR"

    exit_code = 124
    retryable = True


class RefusedError(EnvsyncError):
    """Waiting would be pointless or was forbidden (`--busy fail`, a `run` within a `run`)."""

    _usual = "WHO_RUNS"

    exit_code = 124


class SharedFailureError(EnvsyncError):
    """The process that synced for us failed; its message is ours, and so is whether to try again.

    :ivar original: the name of the class of that process's error, as in "HashMismatchError"; empty if it did not say
    :ivar brief: the same in a line, where another task of a parallel step tells it whole
    """

    _usual = "AGAIN"

    original = ""
    brief = ""


class DeadLeadersError(EnvsyncError):
    """One process after the other died while it synced: what kills them (memory, a time limit) would kill the next.

    :param path: the environment
    :param leaders: who they were, as in "pid 4711 on node07"
    """

    def __init__(self, path: str, leaders: tuple[str, ...]) -> None:
        super().__init__(
            f"{len(leaders)} processes died one after the other while they synced environment `{path}`: "
            f"{', '.join(leaders)}",
            hint="find out what ended them, a limit of memory or time perhaps; `ulimit -a` says those of this shell; "
            "then `envsync sync`",
        )
        self.path = path
        self.leaders = leaders


class SyncCancelledError(EnvsyncError):
    """Nobody waits for this sync any more, so it was given up before its commit was decided; nothing was changed."""

    _usual = "AGAIN"
    retryable = True


# The network or the index must act.


class FetchError(EnvsyncError):
    """A file could not be fetched. The URL in the message has no credentials."""

    _usual = "AGAIN"
    retryable = True


# The author of a wheel must act.


class WheelError(EnvsyncError):
    """A wheel, or an archive to build one of, is not what the lock file or its RECORD says; nothing of it was kept.

    :param wheel: the file's name
    :param problem: what is wrong with it
    """

    def __init__(self, wheel: str, problem: str, *, hint: str | None = None) -> None:
        kind = "archive" if wheel.endswith(SDIST_SUFFIXES) else "wheel"
        super().__init__(f"refusing {kind} `{wheel}`: {problem}", hint=hint)
        self.wheel = wheel
        self.problem = problem

    def _usual_hint(self) -> str:
        from envsync.errors import hints

        return hints.of_wheel(self.wheel)


class HashMismatchError(WheelError):
    """The bytes of a wheel are not those that the lock file names."""


# The author of a source, or who builds it, must act.


class BuildError(EnvsyncError):
    """A package could not be built of its source; nothing of it was kept but the log.

    :param package: its name, with the version if it is known
    :param problem: what went wrong, with the last lines that the build has said
    :param log: the path of the whole log; empty if there is none
    """

    def __init__(self, package: str, problem: str, *, log: str = "", hint: str | None = None) -> None:
        super().__init__(f"cannot build `{package}`: {problem}", hint=hint)
        self.package = package
        self.problem = problem
        self.log = log

    def _usual_hint(self) -> str:
        from envsync.errors import hints

        return hints.of_build(self.package)

    @property
    def hint(self) -> str:
        """What to do about it, and where all is that the build has said."""
        from envsync.errors import hints

        return hints.with_log(super().hint, self.log)

    @hint.setter
    def hint(self, hint: str | None) -> None:
        self._hint = hint


# The command's own.


class CommandError(EnvsyncError):
    """The command cannot be executed (126) or was not found (127), as a shell says it.

    :ivar errno: why it cannot be executed, 0 if it was not found
    """

    _usual = "CHECK"

    errno = 0

    def __init__(self, message: str, *, exit_code: int = 127, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
