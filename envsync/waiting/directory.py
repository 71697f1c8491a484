"""The directory of an environment: may envsync fill it, and is this process within it?

Imports `os` only if the directory has to be looked at or made.
"""

from __future__ import annotations

import errno

from envsync.launch import command
from envsync.system import core, native, processes
from envsync.waiting import bare

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.errors import EnvsyncError
    from envsync.launch import Environment

OUR_OWN = frozenset({".lock", ".envsync", ".gitignore", "CACHEDIR.TAG"})
TRIES = 100
"""How often a directory is made that others, whose sync came to nothing, remove meanwhile with those above it."""


def prepare(environment: Environment) -> None:
    """Make the environment's directory and `.envsync` in it.

    :raises EnvironmentRefusedError: something that is not an environment is in the way
    :raises FilesystemError: it cannot be made
    """
    if not core.is_directory(environment.state):
        made: list[str] = []
        for _ in range(TRIES):
            if _make(environment, made):
                return
        _make(environment, made, again=False)


def _make(environment: Environment, made: list[str], *, again: bool = True) -> bool:
    """Make it. False: others removed meanwhile what was there, or had just been made; only if it may be done again.

    :param made: gets the directories that were made here. Some may be there still when it is done again, for others
    """
    import os

    from envsync.errors import EnvironmentRefusedError

    try:
        names = set(os.listdir(environment.path))
    except FileNotFoundError:
        names = set()
    except NotADirectoryError:
        raise EnvironmentRefusedError(environment.path, "it is not a directory") from None
    except OSError as error:
        if again and _is_stale(error):
            return False  # it was removed while it was listed, as a network filesystem says it
        raise _failure("read", environment.path, environment, error) from error
    if core.PATH_SEPARATOR in environment.path:
        why = f"its path has a `{core.PATH_SEPARATOR}`, which PATH cannot hold"
        raise EnvironmentRefusedError(environment.path, why)
    is_strange = names - OUR_OWN and "pyvenv.cfg" not in names
    if is_strange and not was_environment(environment) and not is_leftover(environment):
        raise EnvironmentRefusedError(
            environment.path,
            "the directory is not empty and not a virtual environment",
            hint="have the environment made elsewhere: `envsync sync --env '.venvs/{digest}'`",
        )
    missing = _missing(environment.path)
    try:
        _make_directories(bare.plain(environment.path), made)
        try:
            os.mkdir(environment.state)
        except FileExistsError:
            if not os.path.isdir(environment.state):
                raise
        if names <= OUR_OWN:
            bare.mark(environment, max(missing, _made(environment.path, made)), names)
    except BaseException as error:  # an interrupt, too: nobody knows yet that they are ours
        bare.remove_directories(environment.path, environment.state, max(missing, _made(environment.path, made)))
        if again and (isinstance(error, (FileNotFoundError, FileExistsError)) or _is_stale(error)):
            return False
        if isinstance(error, OSError):
            raise _failure("make directory", environment.state, environment, error) from error
        raise
    return True


def _is_stale(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.ESTALE


def _failure(doing: str, path: str, environment: Environment, error: OSError) -> EnvsyncError:
    """Say why it can be neither read nor made: one of the names on the way to it may be a link that leads nowhere."""
    import os

    from envsync.errors import EnvironmentRefusedError, FilesystemError
    from envsync.errors.hints import of_link

    link = environment.state
    while link:
        if os.path.islink(link) and not os.path.exists(link):
            problem = f"`{link}` is a symbolic link to `{os.readlink(link)}`, which leads nowhere"
            return EnvironmentRefusedError(environment.path, problem, hint=of_link(link))
        link = bare.plain(link.rpartition("/")[0])
    return FilesystemError(doing, path, error)


def _make_directories(path: str, made: list[str], *, again: bool = True) -> None:
    """Make a directory and those above it that are missing: others may have removed them since they were looked at.

    :param made: gets those that were made here
    :raises OSError: it cannot be made, or somebody has removed one above it meanwhile
    """
    import os

    try:
        os.mkdir(path)
    except FileNotFoundError:
        above = bare.plain(path.rpartition("/")[0])
        if not above or not again:
            raise
        _make_directories(above, made)
        _make_directories(path, made, again=False)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    else:
        made.append(path)


def _missing(path: str) -> int:
    """Count the directories that are missing, a directory's own and those above it."""
    missing, path = 0, bare.plain(path)
    while path and not os.access(path, os.F_OK):
        missing += 1
        path = bare.plain(path.rpartition("/")[0])
    return missing


def _made(path: str, made: list[str]) -> int:
    """Count a directory and those above it up to the uppermost that was made here."""
    found, level, path = 0, 0, bare.plain(path)
    while path:
        level += 1
        found = level if path in made else found
        path = bare.plain(path.rpartition("/")[0])
    return found


def was_environment(environment: Environment) -> bool:
    """Tell whether a directory without pyvenv.cfg has been a virtual environment: its python leads out of it.

    That of a base installation, and of conda, does not. Those are never touched.
    """
    import os

    python = environment.python
    from envsync.system import paths

    inside = paths.realpath(environment.path) + "/"
    return os.path.islink(python) and not paths.realpath(python).startswith(inside)


def is_leftover(environment: Environment) -> bool:
    """Tell whether a directory has no more than a leader puts back whose environment was removed in the midst.

    Until it looks at its lock again, it makes directories as far as site-packages, and in there a part of its stage.
    """
    import os

    for directory, names, files in os.walk(environment.path):
        if directory == environment.path and set(names) - {native.LIBRARIES[0], ".envsync"}:
            return False
        if (files and directory != environment.path) or set(files) - OUR_OWN:
            return False
        if any(os.path.islink(f"{directory}/{name}") for name in names):
            return False
        if ".envsync" in names:
            names.remove(".envsync")
    return True


def is_marked(environment: Environment) -> bool:
    """Tell whether the variables say that this process was started by a command that runs in this environment.

    It may have come by them through a daemon (srun, a batch job that is waited for), as no descendant of it. Then
    nobody can tell whether that command still runs and waits for this process.
    """
    token = core.variable("ENVSYNC_IN").partition(":")[0]
    try:
        return token != "" and token == str(os.stat(environment.in_use).st_ino)
    except OSError:
        return False


def is_inside(environment: Environment, *, besides: int = -1) -> bool:
    """Tell whether this process descends from a command that runs in this environment: it would wait for itself.

    The variable that `run` sets is not enough: it outlives the command in whatever inherits the variables only (a
    batch job, a terminal multiplexer). Either the descriptor of the in-use lock is inherited, or a process that
    locked it is an ancestor. Pids of another host or container cannot be mistaken for ancestors: /proc/locks shows
    only locks of its own pid namespace, and of this host, and it is asked only if that namespace is ours.

    One that a scheduler's daemon has started within the same job (`srun` in a batch script) is taken for inside, too:
    there the command waits for what it has started, or ends with it.

    Where there is no /proc at all (macOS), `run` has said which process became the command (`command.WHO`): if that one
    lives and is of our session, or known as an ancestor, we are taken for inside.

    :param besides: a descriptor of the in-use lock that was not inherited
    """
    if not is_marked(environment):
        return False
    if processes.inherited(environment.in_use, besides=besides) or _is_of_its_job():
        return True
    if processes.has_proc():
        return not processes.ancestors().isdisjoint(processes.holders(environment.in_use))
    return processes.is_below(core.variable(command.WHO))


def _is_of_its_job() -> bool:
    """Tell whether this process is of the scheduler's job in which the command runs whose variables it has."""
    job = core.variable(command.JOB)
    return job != "" and job == next(filter(None, map(core.variable, command.JOBS)), "")
