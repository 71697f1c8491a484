"""What all kinds of lock files have in common: how they are read, and what is known of one that was parsed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from envsync.errors import LockFileError
from envsync.launch.reading import content_of_named, hint_of
from envsync.lockfile.choice import Choice
from envsync.lockfile.sources import Sources
from envsync.lockfile.target import Target
from envsync.python.facts import Interpreter


def known_to_nobody(sha256: str) -> None:
    """Answer for a store that has nothing."""


class LockFile(Protocol):
    """A parsed lock file, before any network and independent of the interpreter."""

    @property
    def path(self) -> str:
        """The lock file, as it was given."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every file read, as it can be opened: the lock file, then what it includes in order of reading.

        One that would be read if it were there is an input, too, and counts as empty.
        """

    @property
    def contents(self) -> tuple[bytes, ...]:
        """What was read from each of the inputs."""

    @property
    def canonical(self) -> tuple[bytes, ...]:
        """What decides in each of the inputs, for the digest: its content, or the part that counts in one form.

        Of two contents with the same, the same comes out in every respect, as for a pyproject.toml and one with another
        comment (`envsync.lockfile.pyproject`). Of the lock file itself, the digest has the content.
        """

    @property
    def unhashed(self) -> bool:
        """Whether some reference has no hash."""

    @property
    def local_files(self) -> tuple[str, ...]:
        """The absolute paths of the local wheels that are referred to directly and without a hash."""

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of the environment variables that decide what is installed."""

    @property
    def values(self) -> tuple[str, ...]:
        """What stands for them in the digest, with the values that were used (`envsync.launch.variables.describe`)."""

    @property
    def placed(self) -> bool:
        """Whether directories, or references without a hash, are found by paths relative to the lock file."""

    @property
    def markers(self) -> tuple[str, ...]:
        """The texts of all markers, Requires-Python among them (`envsync.lockfile.conditions`)."""

    def select(
        self,
        interpreter: Interpreter,
        choice: Choice = Choice(),  # noqa: B008
        *,
        sources: Sources = Sources(),  # noqa: B008
        known: Callable[[str], str | None] = known_to_nobody,
    ) -> Target:
        """Select what to install for one interpreter.

        Asks the network only for what has no known place, and never imports what is needed for that before.

        :param choice: which extras, groups, members, ...
        :param known: gives the file name of the wheel that the store has under a SHA-256, or None
        :raises LockFileError: the lock file does not fit this Python or lacks an extra or group
        :raises NoWheelError: a package has no wheel that fits or can be reached
        :raises FetchError: an index that has to be asked does not answer
        """


@contextmanager
def understanding(path: str) -> Iterator[None]:
    """Turn what a parser says of a senseless file into a sentence: numbers of thousands of digits, thousands of levels.

    :raises LockFileError: it makes no sense
    """
    try:
        yield
    except RecursionError as error:
        raise LockFileError(path, "it is nested too deeply to be meant") from error
    except (ValueError, ArithmeticError) as error:
        said = " ".join(str(error).split())[:120]
        raise LockFileError(path, f"it has a value that makes no sense ({said})") from None


def refuse_members(path: str, choice: Choice, otherwise: str) -> None:
    """Refuse to choose from members where a kind of lock file has none.

    :param otherwise: what else helps, but to leave the option out
    :raises LockFileError: it is asked to
    """
    if choice.of_workspace:
        problem = f"it has no workspace members to choose from with `{choice.of_workspace[0]}`"
        raise LockFileError(path, problem, hint=f"leave it out, or {otherwise}")


def read_input(path: str, lock_file: str, origin: str = "") -> bytes:
    """Read one input file whole.

    :param lock_file: the lock file that needs it, for the message
    :param origin: what in the lock file refers to it, as in "line 3: "
    :raises LockFileError: it cannot be read
    """
    try:
        return content_of_named(path)
    except OSError as error:
        what = origin + (f"`{path}`: " if path != lock_file else "")
        raise LockFileError(lock_file, what + (error.strerror or str(error)), hint=hint_of(error)) from error
    except ValueError as error:  # a NUL in its name, say
        raise LockFileError(lock_file, f"{origin}`{path!r}` is no name of a file") from error
