"""The fast lane of `run`: is the environment current? Then become the command at once.

Everything here is counted: a launch in a current environment takes seven file operations in the environment and
the project, no exclusive lock, and only these modules of ours on top of `os`, `fcntl` and a hash built in C:

1. read pyproject.toml or find that there is none (one listing of the directory more if the lock file is not named), and
   what `{digest}` stands for, if that takes a parser (`envsync.launch.names`)
2. open the in-use lock and share it without blocking
3. read the stamp, now that nobody can commit
4. read the lock file, and every further input that the stamp names and that was not read yet
5. open site-packages, by the absolute path in the stamp
6. stat pyvenv.cfg, and a file that is there to be purged before the rest (one more, in the store, if it is linked to)
7. exec `<env>/bin/COMMAND`, untried before

It knows "current" and "don't know", never "wrong": whatever does not fit releases the in-use lock and leaves the
rest to the slow path. Opening site-packages instead of looking at it makes an NFS client ask the server for its
attributes (close-to-open consistency, nfs(5)).
"""

from envsync.launch import Environment, command, stamp
from envsync.launch.finding import go_to
from envsync.launch.reading import content
from envsync.launch.request import (
    TREES,
    Request,
    describe_python,
    exactly,
    is_named_later,
    own_python,
    own_version,
    resolve,
    with_script,
)
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from envsync.launch.options import Settings
    from envsync.launch.stamp import Stamp

MARK = "held."
"""How the names of marks begin there: this job has said that it runs in this environment."""


class Entry:
    """A shared hold on a current environment: the stamp, and the descriptor of the in-use lock."""

    __slots__ = ("fd", "stamp")

    def __init__(self, fd: int, stamp: "Stamp") -> None:
        self.fd = fd
        self.stamp = stamp
        command.own(fd, self)


def launch(
    settings: "Settings", words: "list[str]", environ: "Mapping[str, str]"
) -> tuple[Request, Environment | None, bool, list[str]]:
    """Become the command if its environment is known to be current. Returns what the slow path has to know if not.

    :param settings: what the command line of `run` says
    :param words: the command
    :returns: what is asked for; its environment, None if its name takes more than a glance; and whether the stamp fits
        and yet the command does not run; and the command, which of a script with a lock file is a Python with that
    :raises EnvsyncError: what is asked for makes no sense, or the command was not found or cannot be executed
    """
    go_to(settings, environ)
    settings, words = with_script(settings, words, environ)
    request = resolve(settings, environ)
    environment = environment_of(request)
    entry = enter(request, environment) if environment is not None else None
    if entry is not None:
        become(entry, words, environ, isolated=request.flag("isolated"))
    return request, environment, entry is not None, words


def environment_of(request: Request) -> Environment | None:
    """Return the environment that a request names, or None if its name takes more than a glance.

    `{digest}` and `{python}` need facts that only a parser or a look at other Pythons can give: so the name has to be
    remembered, but for a pylock.toml that is to be installed for the Python that runs envsync.
    """
    if not is_named_later(request.env_template):
        return Environment(request.env_template)
    if request.text("python") or not request.lock.endswith(".toml") or TREES in request.looks_at:
        from envsync.launch import names

        name = names.recall(request)
        return request.environment(name.digest, name.python) if name is not None else None
    python = own_python()
    return request.environment(request.digest(python, conditions=exactly(request.looks_at, own_version())), python)


def enter(request: Request, environment: Environment, *, accept_racy: bool = False, share: bool = True) -> Entry | None:
    """Share the in-use lock if the environment is current.

    Returns None for "don't know"; then nothing is held.

    :param accept_racy: take a stamp whose mtime proves nothing, as whoever waited for this very sync may
    :param share: False to open the in-use lock only, where shared locks do not work (`envsync.locks.environment_lock`)
    """
    try:
        fd = command.open_lock(environment.in_use, os.O_RDONLY | core.NONBLOCK)
    except OSError:
        return None
    try:
        if share:
            core.lock(fd, environment.in_use, shared=True)
        inode = command.held[fd].inode
        current = _read_stamp(environment, inode)
        certain = current is not None and current.in_use == inode and (accept_racy or not current.racy)
        if current is not None and certain and fits(current, request, environment.config):
            _keep_new(fd, command.held[fd].mtime)
            return Entry(fd, current)
    except OSError:
        pass  # "don't know" is the answer to whatever cannot be opened, read or locked
    except BaseException:
        command.close_lock(fd)
        raise
    command.close_lock(fd)
    return None


def _keep_new(fd: int, mtime: float) -> None:
    """Let the in-use lock look new once a day: nobody reads it, and a purge takes what is old while commands hold it.

    So its time is that of the environment's last use, to a day.
    """
    from time import time

    if mtime < time() - 86400:
        try:
            core.touch(fd)
        except OSError:
            pass  # somebody else's environment


def _read_stamp(environment: Environment, inode: int) -> "Stamp | None":
    # A command of ours may start others of its kind while a leader waits for it to end: it would wait for itself.
    inside = core.variable("ENVSYNC_IN").partition(":")[0] == str(inode)
    for path in (environment.stamp, environment.draining) if inside else (environment.stamp,):
        try:
            fd = core.open_file(path, os.O_RDONLY | core.NONBLOCK)
        except FileNotFoundError:
            continue
        try:
            return stamp.load(os.read(fd, 1 << 20))
        finally:
            os.close(fd)
    return None


def fits(current: "Stamp", request: Request, config: str) -> bool:
    """Tell whether the stamp is for this request and what it vouches for is as it was.

    :param config: path of pyvenv.cfg
    :raises OSError: something that it vouches for cannot be read
    """
    if digest_of(request, current) != current.digest or (request.flag("locked") and not was_checked(request, current)):
        return False
    return is_untouched(current, config)


def is_named(request: Request, environment: Environment) -> bool:
    """Tell whether the stamp is for this request, whether or not it still fits what it vouches for."""
    try:
        current = stamp.load(content(environment.stamp))
        return current is not None and digest_of(request, current) == current.digest
    except OSError:
        return False


def digest_of(request: Request, current: "Stamp") -> str | None:
    """Compute the request's digest with the stamp's word for what only a parser can tell.

    That word is good: it was given for inputs of exactly this content, or the digest comes out differently.
    Returns None if the host is not one that the stamp was made for, or that it has seen since, or if a further input
    has a content that nobody has parsed for it yet.

    :raises OSError: a further input, or the base interpreter if it matters, cannot be looked at
    """
    if not (is_for_this_host(current) and is_for_this_base(current) and is_for_this_kernel(current)):
        return None
    if not request.may_have([each.path for each in current.inputs]) or not are_known(request, current):
        return None
    return request.digest(
        current.python,
        [each.counts for each in current.inputs],
        variables=_variables(current),
        conditions=current.conditions,
        unhashed=current.unhashed,
        placed=current.placed,
        local_files=[f for f in current.local_files if f.direct],
    )


def was_checked(request: Request, current: "Stamp") -> bool:
    """Tell whether the lock file was found to have what its project asks for, as `--locked` wants it.

    :raises OSError: a file that it was compared with cannot be read
    """
    return bool(current.checked) and all(request.checksum_of(path) == content for content, path in current.checked)


def are_known(request: Request, current: "Stamp") -> bool:
    """Tell whether each further input has a content for which the stamp says what counts.

    :raises OSError: one cannot be read
    """
    return all(request.checksum_of(each.path) in each.seen for each in current.inputs)


def is_for_this_host(current: "Stamp") -> bool:
    """Tell whether machine and C library are those that the stamp was made for. No file operation."""
    implementation, _, rest = current.python.partition(" ")
    return current.python == describe_python(implementation, rest.partition(" ")[0])


def is_for_this_base(current: "Stamp") -> bool:
    """Tell whether the base interpreter is one that was seen to be what markers want, if any looks at more than X.Y.

    One operation, outside the environment; none for a lock file without such a marker.

    :raises OSError: there is none any more
    """
    return not current.base or look_at_base(current.base) in current.bases


def look_at_base(path: str) -> tuple[int, int]:
    """Return size and mtime_ns of a base interpreter, through all links."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def is_for_this_kernel(current: "Stamp") -> bool:
    """Tell whether the kernel is one that was seen to be what markers want, if any looks at it. No file operation."""
    return not current.kernel or look_at_kernel(current.kernel) in current.kernels


def look_at_kernel(names: "Sequence[str]") -> str:
    """Return what stands for the kernel of this host, as far as markers of these names look at it."""
    known = core.kernel()
    return stamp.checksum("\n".join(known.get(name, "") for name in names).encode("utf-8", "surrogateescape"))


def _variables(current: "Stamp") -> list[str]:
    if not current.variables:
        return []
    from envsync.launch.variables import describe

    return describe(current.variables, core.variables())


def is_untouched(current: "Stamp", config: str) -> bool:
    """Tell whether site-packages, pyvenv.cfg, the guards and local wheels are as the stamp says.

    :raises OSError: one of them cannot be looked at
    """
    for site in current.sites:
        fd = core.open_file(site.path, os.O_RDONLY | core.DIRECTORY)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if status.st_ino != site.inode or status.st_mtime_ns != site.mtime_ns:
            return False
    status = os.stat(config)
    if current.config != f"{status.st_size} {status.st_mtime_ns}":
        return False
    for guard in current.guards:
        status = os.stat(guard.path)
        if (status.st_ino, status.st_mtime_ns) != (guard.inode, guard.mtime_ns):
            return False
    for local in current.local_files:
        status = os.stat(local.path)
        if (status.st_size, status.st_mtime_ns) != (local.size, local.mtime_ns):
            return False
    return True


def be_named(current: "Stamp", program: str, environ: "Mapping[str, str]") -> None:
    """Leave word for other nodes that this job runs in the environment, if it has not done so on this node yet.

    Call it with the in-use lock held. In a job, or on a network filesystem, it takes one call: a mark on this node's
    disk, for this job and the environment as it is. Only whoever makes the mark writes (`envsync.locks.holders`).
    Elsewhere it takes none. Nothing depends on a name: what cannot be said is not said.

    :param program: what is run
    """
    job = next(filter(None, map(environ.get, (command.ARRAY, *command.JOBS, command.POD))), "")
    mark = mark_of(current, job) if core.NODE and (job or current.network) else ""
    if not mark:
        return
    made = True
    try:
        os.mkdir(mark, 0o700)
    except FileNotFoundError:
        made = False  # nobody has needed the directory yet that it belongs in
    except OSError:
        return  # it is there, as a rule
    from envsync.locks import holders

    holders.name(current.environment, program, environ, mark, made=made)


def mark_of(current: "Stamp", job: str) -> str:
    """Return the mark of a job, as a path on this node's disk.

    :param job: empty for all of this host that is of none; that is another one every day
    """
    if not job:
        from time import time

        job = f"{time() // 86400}"
    job = job.partition("[")[0]  # PBS names the jobs of an array so
    parts = (current.environment, current.in_use, current.digest, *(site.mtime_ns for site in current.sites))
    text = "\n".join(map(str, (*parts, core.host(), job)))
    return f"{core.NODE}/envsync-{core.user()}/{MARK}{stamp.checksum(text.encode('utf-8', 'surrogateescape'))}"


def become(
    entry: Entry,
    words: "Sequence[str]",
    environ: "Mapping[str, str]",
    *,
    certain: bool = False,
    isolated: bool = False,
) -> None:
    """Exec the command in the environment that was entered. Returns only if the environment turns out broken.

    :param certain: the environment has been made current just now: what is broken now stays so
    :param isolated: let no other packages in than the environment's
    :raises CommandError: the command was not found or cannot be executed
    """
    env = entry.stamp.environment
    token = f"{entry.stamp.in_use}:{entry.stamp.digest}"
    variables = command.environment_variables(environ, env, token, isolated=isolated)
    if entry.fd >= 0:
        be_named(entry.stamp, words[0] if words else "", environ)
    fd = command.keep_across_exec(entry.fd) if entry.fd >= 0 else -1
    if environ.get("ENVSYNC_EVENTS"):
        from envsync.launch.events_file import record

        record("launched", env=env, digest=entry.stamp.digest, command=list(words))
    broken = command.execute(env, entry.stamp.commands, words, variables)
    if certain:
        from envsync.errors import CommandError

        raise CommandError(
            f"cannot execute `{broken}`: it, or the interpreter it names, is missing or spoiled",
            exit_code=126,
            hint="`envsync check --repair` restores what a sync has installed",
        )
    os.close(fd)
