"""What the user asked for: lock file, environment and options, and the digest of them all.

The fast lane builds a request with a handful of file operations and must arrive at the same digest as the slow
path, so both use this module. It imports `tomllib` only when pyproject.toml has a table for us that is not plain.

The digest covers the content of every input file, the options that decide what is installed, and implementation,
X.Y, machine and libc family of the target. Where the lock file has references without a hash it also covers the
options that say where wheels come from, and size and mtime of local wheels. It does not cover paths, unless such
references are found by them: the same lock file in two places has one digest. docs/digest.md goes through all of it.
"""

import sys

if sys.platform == "win32":
    import os
else:
    import posix as os  # all of `os` that is needed here, without the 1.5 ms that `os` takes to import

from envsync.launch import options
from envsync.launch.stamp import LocalFile, checksum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from envsync.errors import UsageError
    from envsync.launch.options import Settings, Value

LARGEST = 1 << 28
"""Bytes of an input or of a file of ours; what is larger is none."""
EXACT = ("python_full_version", "implementation_version", "platform_release", "platform_version")
"""The markers that look at more than implementation, X.Y, machine and C library."""
TREES = "directory"
"""What a pylock.toml says that has directories: then its own place belongs to the name, which takes a parser."""
RANKS = (("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"), ("pylock.toml",), ("requirements.txt",))
"""Which file is meant if none is named: the project's own, before one that was made of it. One of a rank."""
CANDIDATES = tuple(name for rank in RANKS for name in rank)
READ = {
    "uv.lock": (b"\nversion = ", (b"1\n", b"1\r")),
    "poetry.lock": (b'\nlock-version = "', (b"2.1", b"2.2")),
    "pdm.lock": (b'\nlock_version = "', (b"4.",)),
}
"""What tells the version of a lock file, and those that are read. Any other is passed over if there is another file."""
MEMBERS = "uv.lock"
"""The lock file of a workspace: which of its members is meant is told by the directory that one stands in."""
SCRIPT = ".py.lock"
"""How the name of a script's lock file ends (PEP 723, as uv locks it). Its environment is none of the project's."""
PROJECT = "pyproject.toml"
DEFAULTS = b"default-groups"
"""The key in `[tool.uv]` that says which groups are installed if nothing is said of groups."""
DEFAULTS_SINCE = 5
"""The revision of uv.lock from which on that is in there, too."""
PINS = (".python-version", ".python-versions")
"""What says which Python a project of uv's wants: in the nearest directory that has one, up to the lock file's."""


INDEX_OF_UV = "index_of_uv"
"""What in the settings says that the index is the one of uv's variables: it counts for what has no URL only."""


class Place:
    """Where a lock file is.

    :ivar directory: as a prefix
    :ivar names: of the lock files there; none if one was named
    :ivar project: its pyproject.toml, as it was read; empty if there is none
    :ivar table: the options in that
    :ivar member: the directory of the nearest project, relative to this one; None if nobody has looked
    :ivar pin: the nearest of `PINS`, relative to this one, or empty; None if nobody has looked
    """

    __slots__ = ("directory", "member", "names", "pin", "project", "table")

    def __init__(self, directory: str, project: bytes) -> None:
        self.directory = directory
        self.project = project
        self.table = _table(project, directory + PROJECT)
        self.names: list[str] = []
        self.member: str | None = None
        self.pin: str | None = None


class Request:
    """A resolved request.

    :ivar settings: the options, command line over environment over pyproject.toml
    :ivar lock: path of the lock file, as it can be opened
    :ivar directory: the lock file's directory as a prefix: empty, or ending in a slash
    :ivar content: checksum of the lock file
    :ivar looks_at: those of `EXACT` and `TREES` that occur in it, if the environment is named by `{digest}`
    :ivar member: the directory of the member of a workspace that one stands in, relative to the lock file's
    :ivar name: what `{digest}` stands for, if it was found out, for `envsync.leading.naming` to leave
    :ivar pin: the file `.python-version` that counts, relative to the lock file, or empty; None if nobody has looked
    :ivar seen: checksums of further files that were read on the way, by path: they may be inputs, too
    """

    __slots__ = (
        "_key",
        "_pinned",
        "content",
        "directory",
        "env_template",
        "lock",
        "looks_at",
        "member",
        "name",
        "pin",
        "seen",
        "settings",
    )

    def __init__(
        self,
        settings: "Settings",
        lock: str,
        content: str,
        env_template: str,
        looks_at: tuple[str, ...] = (),
        *,
        member: str = ".",
        pin: str | None = "",
        seen: dict[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.lock = lock
        self.directory = _directory(lock)
        self.content = content
        self.env_template = env_template
        self.looks_at = looks_at
        self.member = member
        self.pin = pin
        self.seen: dict[str, str] = {} if seen is None else seen
        self.name: object = None
        self._key = ""
        self._pinned: tuple[str, bytes] | None = None

    @property
    def key(self) -> str:
        """Stands for all that is known before the lock file is parsed.

        Those who ask for the same have the same key, and share a failure. So it covers what lets them in, too, user
        information in URLs, which the digest does not.
        """
        if not self._key:
            from envsync.launch.command import variables as environ
            from envsync.launch.variables import used_by

            chosen = [*self._target(), *_chosen(self.settings, "source", whole=True)]
            lines = ["key", *chosen, *_given(self.settings), self.content, *used_by(self.lock, environ(), content)]
            self._key = checksum("\n".join(lines).encode("utf-8", "surrogateescape"))
        return self._key

    def _target(self) -> list[str]:
        lines = _chosen(self.settings, "target")
        return [*lines, f"member {self.member!r}"] if self.member != "." else lines

    def pinned(self) -> tuple[str, bytes]:
        """Return the file that says which Python a project of uv's wants, and its content; both empty if none counts.

        It is looked for and read but once.

        :raises LockFileError: it cannot be read
        """
        if self._pinned is None:
            if self.pin is None:
                directories = [*_between(self.directory, _start(self.settings)), (self.directory, "")]
                places = (
                    (prefix + name, f"{below}/{name}".lstrip("/")) for prefix, below in directories for name in PINS
                )
                self.pin = next((below for path, below in places if _is_file(path)), "")
            path = self.directory + self.pin if self.pin else ""
            self._pinned = path, read(path) if path else b""
        return self._pinned

    def may_have(self, inputs: "Sequence[str]") -> bool:
        """Tell whether, of the files that say which Python is wanted, the one that counts is among the further inputs.

        If the lock file was named, nobody has looked into its own directory: one that has come there since the inputs
        were found is seen by the next sync.
        """
        pins = [path for path in inputs if path[path.rfind("/") + 1 :] in PINS]
        if self.pin is None:
            return not any("/" in path for path in pins)
        return pins == ([self.pin] if self.pin else [])

    def replaced(self, **settings: "Value") -> "Request":
        """Return the same request with other settings."""
        asked = {**self.settings, **settings}
        same = self.lock, self.content, self.env_template, self.looks_at
        return Request(asked, *same, member=self.member, pin=self.pin, seen=self.seen)

    def text(self, key: str) -> str | None:
        """Return the value of an option that takes one word."""
        value = self.settings.get(key)
        assert value is None or isinstance(value, str)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the values of an option that may be given several times."""
        value = self.settings.get(key, [])
        assert isinstance(value, list)
        return tuple(value)

    def flag(self, key: str) -> bool:
        return self.settings.get(key) is True

    def checksum_of(self, path: str, *, keep: bool = False) -> str:
        """Return the checksum of a further input. What was read to find out what is asked for counts as it was then.

        One that is not there counts as empty, whatever made it an input: its coming is a change like any other.

        :param path: relative to the lock file's directory, or absolute
        :param keep: this is to find out what is asked for
        :raises OSError: it cannot be read
        """
        path = path if path.startswith("/") else self.directory + path
        found = self.seen.get(path) or checksum(content_if_there(path))
        if keep:
            self.seen[path] = found
        return found

    @property
    def timeout(self) -> float | None:
        """Seconds to wait for others, None without limit."""
        value = self.settings.get("timeout")
        assert value is None or isinstance(value, float)
        return value

    def digest(
        self,
        python: str,
        inputs: "Sequence[str]" = (),
        *,
        variables: "Sequence[str]" = (),
        conditions: str = "",
        unhashed: bool = False,
        placed: bool = False,
        local_files: "Iterable[LocalFile]" = (),
    ) -> str:
        """Compute the digest.

        :param python: implementation, X.Y, machine and libc family, as `describe_python` says them
        :param inputs: the checksums of what decides in the further input files, in order
        :param variables: what stands for the environment variables that decide (`envsync.launch.variables.describe`)
        :param conditions: stands for how markers come out that look at more than X.Y; empty if none does
        :param unhashed: whether some reference has no hash
        :param placed: whether such a reference, or a directory, is found by a path relative to the lock file
        :param local_files: the local wheels that are referred to directly and without a hash
        """
        lines = ["envsync-digest 2", f"lock {self.content}"]
        lines += [f"input {content}" for content in inputs]
        lines += [f"variable {variable}" for variable in variables]
        lines += self._target()
        lines.append("python " + python)
        if conditions:
            lines.append("conditions " + conditions)
        if unhashed:
            lines += _chosen(self.settings, "source")
        if placed:
            lines.append(f"directory {_absolute(self.directory)!r}")
        if unhashed:
            lines += [f"local {local.size} {local.mtime_ns} {local.path}" for local in local_files]
        return checksum("\n".join(lines).encode("utf-8", "surrogateescape"))


def own_python() -> str:
    """Describe the Python that runs envsync."""
    short = "%d.%d" % sys.version_info[:2]  # noqa: UP031
    release = release_of(short, getattr(sys, "abiflags", ""), narrow=sys.maxsize < 1 << 32)
    return describe_python(sys.implementation.name, release)


def own_version() -> str:
    """Return the full version of the Python that runs envsync."""
    return sys.version.partition(" ")[0]


def describe_python(implementation: str, release: str) -> str:
    """Describe a target Python on this machine, as in `cpython 3.11 x86_64 glibc`.

    :param release: X.Y, with what tells its builds apart, as in 3.13t (`release_of`)

    The machine and the libc family are this host's: an environment on a shared filesystem may be met by others.
    """
    return f"{implementation} {release} {os.uname().machine} {libc_family()}"


def release_of(short_version: str, flags: str, *, narrow: bool) -> str:
    """Name a release and kind of build: each kind takes other wheels.

    :param flags: as `sys.abiflags`: `t` for one without the GIL, `d` for one with debugging
    :param narrow: of 32 bits
    """
    return f"{short_version}{flags}{'-32' if narrow else ''}"


def looks_at(data: bytes) -> tuple[str, ...]:
    """Return those of `EXACT` that occur in lock files, and `TREES` if that does."""
    return tuple(name for name in (*EXACT, TREES) if name.encode() in data)


def exactly(names: "Sequence[str]", full_version: str) -> str:
    """Return what a directory named by `{digest}` has in its name besides, if the lock file has such markers.

    An environment that is named by its digest is never changed, so its name has the versions themselves, whatever the
    markers make of them. Empty if there are no such markers.

    :param full_version: of the target
    """
    system = os.uname()
    known = {EXACT[2]: system.release, EXACT[3]: system.version}
    return " ".join(f"{name} {known.get(name, full_version)!r}" for name in names if name != TREES)


def libc_family() -> str:
    """Name the C library's family without a file operation: confstr is glibc's own (confstr(3)).

    Other systems than Linux have but one: there it is the system's name.
    """
    system = str(sys.platform)  # for mypy, which else takes what follows for dead on other systems
    if system != "linux":
        return system
    try:
        return "glibc" if os.confstr("CS_GNU_LIBC_VERSION") else "other"
    except (ValueError, OSError):
        return "other"


def go_to(given: "Settings", environ: "Mapping[str, str]") -> None:
    """Change to the directory that a command line, or a variable, names: what follows is as if one stood there.

    :raises UsageError: there is none
    """
    directory = _directory_to_go_to(given, environ)
    if isinstance(directory, str):
        path = _home(directory, environ) if _is_at_home(directory) else directory
        try:
            os.chdir(path)
        except OSError as error:
            raise _usage_error(f"cannot go to directory `{path}`: {error.strerror}") from error


def _directory_to_go_to(given: "Settings", environ: "Mapping[str, str]") -> "Value | None":
    found = [given.get("directory"), *map(environ.get, ("ENVSYNC_DIRECTORY", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY"))]
    return next((each for each in found if each), None)


def resolve(given: "Settings", environ: "Mapping[str, str]") -> Request:
    """Find the lock file and merge the options.

    :param given: the options of the command line
    :param environ: the process's environment variables
    :raises UsageError: an option makes no sense, or no single lock file can be found
    :raises LockFileError: the lock file cannot be read
    """
    seen: dict[str, str] = {}
    near = _near(given, environ)
    place = _place(near, seen)
    lock, data = near.get("lock") or place.table.get("lock"), None
    if not isinstance(lock, str):
        lock, data = _best(place.directory, place.names)
    settings = _merged(near, place.table, lock, environ)
    template = _template(settings, lock, environ)
    data = read(lock) if data is None else data
    looks = looks_at(data) if "{digest}" in template else ()
    member, pin = _standing(place, lock, _start(near)) if _name(lock) == MEMBERS else (".", "")
    if member != "." and not _decides(member, place, lock, data, settings, seen):
        member = "."
    if settings.get("python"):
        pin = ""
    return Request(settings, lock, checksum(data), template, looks, member=member, pin=pin, seen=seen)


def settings_here(given: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Merge the options as `resolve` does, but for a command that needs no lock file.

    :raises UsageError: an option makes no sense
    """
    from envsync.errors import UsageError

    near = _near(given, environ)
    try:
        place = _place(near, {})
    except UsageError:
        if near.get("lock"):
            raise
        place = Place("", _project("", {}))  # no lock file: then the table is the one of this directory
        _anchor(place.table, "")
    lock = near.get("lock") or place.table.get("lock") or "".join(place.names[:1])
    return _merged(near, place.table, str(lock), environ)


def _near(given: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Merge the command line with our variables, and with the one of uv's that says where to look."""
    near = options.over(given, options.from_variables(environ))
    if environ.get("UV_PROJECT") and not near.get("project"):
        near["project"] = environ["UV_PROJECT"]
    near = _at_home(near, environ)
    if _directory_to_go_to(given, environ):
        # Who reads a message stands where the command was typed.
        key = "lock" if near.get("lock") else "project"
        named = "" if near.get(key) == "." else str(near.get(key, ""))
        near[key] = named if named.startswith("/") else f"{os.getcwd().rstrip('/')}/{named}"
    return near


def _place(near: "Settings", seen: dict[str, str]) -> Place:
    """Find out in which directory the lock file is, and what is said there."""
    lock = near.get("lock")
    if isinstance(lock, str):
        place = Place(_directory(lock), _project(_directory(lock), seen))
    else:
        place = _find(_start(near), seen)
    _anchor(place.table, place.directory)
    return place


def _start(settings: "Settings") -> str:
    """Return where to look for a project, as a prefix: `--project`, or else where one stands."""
    project = settings.get("project") or ""
    assert isinstance(project, str)
    return project.rstrip("/") + "/" if project else ""


def _merged(near: "Settings", table: "Settings", lock: str, environ: "Mapping[str, str]") -> "Settings":
    """Merge what the command line and our variables say with uv's variables, if uv has locked it, and the file."""
    script = lock.endswith(SCRIPT)
    if script or _name(lock) == MEMBERS:
        said = options.from_variables(environ, of_uv=True)
        if isinstance(said.get("env"), str):
            said["env"] = _beside(_directory(lock), str(said["env"]))
        if script:  # neither the project's environment nor what of a project is to be installed is meant for it
            for key in ("env", *(option.key for option in options.CHOICE)):
                said.pop(key, None)
        if said.get("index_url") and not near.get("index_url"):
            said[INDEX_OF_UV] = True
        near = options.over(near, said)
    if script:
        table = {key: value for key, value in table.items() if key != "env"}
    return _at_home(options.over(near, table), environ)


def _template(settings: "Settings", lock: str, environ: "Mapping[str, str]") -> str:
    """Return the environment's path, with `{digest}` as it is written."""
    template = settings.get("env")
    if settings.get("active") and environ.get("VIRTUAL_ENV"):
        template = environ["VIRTUAL_ENV"]
    if not isinstance(template, str):
        template = _of_script(settings, lock, environ) if lock.endswith(SCRIPT) else _directory(lock) + ".venv"
    if not template.strip("/"):
        raise _usage_error("the environment cannot be the root directory or an empty path")
    return template.rstrip("/")


def _of_script(settings: "Settings", lock: str, environ: "Mapping[str, str]") -> str:
    """Return where the environment of a script is if nothing is said: in the cache, under its name."""
    cache = settings.get("cache_dir") or environ.get("XDG_CACHE_HOME", "") + "/envsync"
    home = environ.get("HOME", "")
    if cache == "/envsync" and home.startswith("/"):
        cache = home.rstrip("/") + ("/Library/Caches/envsync" if str(sys.platform) == "darwin" else "/.cache/envsync")
    if cache == "/envsync":
        hint = "name an environment for the script: `envsync sync --env '.venvs/{digest}'`"
        raise _usage_error(
            "there is no place for the environment of a script: HOME is not set, or no absolute path", hint
        )
    return f"{cache}/environments/{_name(lock).removesuffix(SCRIPT)}-{{digest}}"


def with_script(settings: "Settings", words: "list[str]", environ: "Mapping[str, str]") -> "tuple[Settings, list[str]]":
    """Have a script that has a lock file beside it run in its own environment. That is one look, for scripts only.

    :param words: the command
    """
    lock = words[0] + ".lock" if words and words[0].endswith(".py") else ""
    named = settings.get("lock") or environ.get("ENVSYNC_LOCK")
    if not lock or named not in (None, "", lock) or not _is_file(lock):
        return settings, words
    return {**settings, "lock": lock}, ["python", *words]


def _directory(path: str) -> str:
    return path[: path.rfind("/") + 1]


def _name(path: str) -> str:
    return path[path.rfind("/") + 1 :]


def read(path: str) -> bytes:
    """Read an input file.

    :raises LockFileError: it cannot be read
    """
    try:
        return content_of_named(path)
    except OSError as error:
        from envsync.errors import LockFileError

        raise LockFileError(path, error.strerror or str(error), hint=hint_of(error)) from error


def hint_of(error: OSError) -> str | None:
    """Return what to do about an input that cannot be read."""
    import errno

    if error.errno == errno.ESPIPE:
        return "write what it gives to a file, and name that one: `envsync sync --lock requirements.txt`"
    return None


def _usage_error(message: str, hint: str | None = None) -> "UsageError":
    from envsync.errors import UsageError  # errors cost the fast lane as much as reading two files

    return UsageError(message, hint=hint)


def content(path: str) -> bytes:
    """Read a file with as few calls as it takes. Nothing else is waited for or read: a pipe has no content to keep to.

    :raises OSError: it cannot be read; ESPIPE: it is no file, but a pipe, a device, ...
    """
    try:
        return _content(path)
    except FileNotFoundError:
        raise
    except OSError:  # it may pass
        from envsync.system.patience import reading

        return reading(_content, path)


def content_if_there(path: str) -> bytes:
    """Read a file that may be missing, and is then as good as empty.

    :raises OSError: as `content`
    """
    try:
        return content(path)
    except FileNotFoundError:
        return b""


def content_of_named(path: str) -> bytes:
    """Read a file that ought to be there.

    :raises OSError: as `content`
    """
    try:
        return content(path)
    except FileNotFoundError:
        from envsync.system.patience import reading_what_is_there

        return reading_what_is_there(_content, path)


def _content(path: str) -> bytes:
    fd = _open(path)
    try:
        status = os.fstat(fd)
        if status.st_mode & _TYPE != _REGULAR:
            raise _no_file(status.st_mode)
        chunks = []
        size = status.st_size
        while size <= LARGEST and (chunk := os.read(fd, 1 << 20)):
            chunks.append(chunk)
            size = max(size, len(chunks) << 20)
        if size > LARGEST:
            raise _too_large()
        return b"".join(chunks)
    finally:
        os.close(fd)


_TYPE, _REGULAR = 0o170000, 0o100000
if sys.platform == "win32":
    _READ, _AT_ONCE = os.O_RDONLY | os.O_BINARY, 0
else:
    _READ, _AT_ONCE = os.O_RDONLY | os.O_CLOEXEC, os.O_NONBLOCK


def _open(path: str) -> int:
    try:
        return os.open(path, _READ | _AT_ONCE)  # a pipe without a writer would be waited for
    except BlockingIOError:  # a server of files wants its lease back first (fcntl(2)): that is worth to wait for
        if os.stat(path).st_mode & _TYPE != _REGULAR:
            raise
        return os.open(path, _READ)


def _too_large() -> OSError:
    import errno

    return OSError(errno.EFBIG, f"it is larger than {LARGEST >> 20} MiB")


def _no_file(mode: int) -> OSError:
    import errno

    if mode & _TYPE == 0o040000:
        return IsADirectoryError(errno.EISDIR, "Is a directory")
    kind = {0o010000: "a pipe", 0o140000: "a socket"}.get(mode & _TYPE, "a device")
    return OSError(errno.ESPIPE, f"it is {kind}, and has to be a regular file: what was read once is read again")


def _anchor(table: "Settings", directory: str) -> None:
    """Make the paths in `[tool.envsync]` relative to its file instead of the working directory."""
    for key in ("lock", "env", "cache_dir", "cache_fallback", "find_links"):
        value = table.get(key)
        if isinstance(value, str):
            table[key] = _beside(directory, value)
        elif isinstance(value, list):
            table[key] = [_beside(directory, item) for item in value]


def _beside(directory: str, path: str) -> str:
    return path if path.startswith("/") or _is_at_home(path) or "://" in path else directory + path


def _at_home(settings: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Replace a leading `~` in paths as shells do, which see it neither in a file nor in `--env=~/x`.

    :raises UsageError: there is one, and HOME is no absolute path
    """
    for key in ("lock", "project", "env", "cache_dir", "cache_fallback", "find_links"):
        value = settings.get(key)
        if isinstance(value, str) and _is_at_home(value):
            settings[key] = _home(value, environ)
        elif isinstance(value, list):
            settings[key] = [_home(item, environ) if _is_at_home(item) else item for item in value]
    return settings


def _is_at_home(path: str) -> bool:
    return path == "~" or path.startswith("~/")


def _home(path: str, environ: "Mapping[str, str]") -> str:
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        raise _usage_error(f"`{path}` is below HOME, which is {'no absolute path' if home else 'not set'}")
    return home.rstrip("/") + path[1:]


def _chosen(settings: "Settings", shapes: str, *, whole: bool = False) -> list[str]:
    """Say in canonical form which options were chosen.

    :param whole: with the user information in URLs
    """
    lines = []
    folded = {**settings, **options.folded(settings)}
    for option in options.REQUEST:
        value = folded.get(option.key)
        if option.shapes != shapes or value is None or value is False:
            continue
        if isinstance(value, list):
            # The order of extras and groups means nothing; that of sources decides what is found first.
            if option.key in options.AS_WRITTEN:
                values = value
            elif shapes == "target":
                values = sorted(set(map(options.normalized, value)))
            else:
                values = [item if whole and "://" in item else _absolute(item) for item in value]
            lines += [f"{option.name} {item!r}" for item in values]
        else:
            lines.append(f"{option.name} {value!r}")
    return lines


def _given(settings: "Settings") -> list[str]:
    """Say what decides neither target nor digest, but whether a sync succeeds."""
    names = ("locked", "offline", "cache_dir", "cache_fallback", "link_mode", "allow_empty", INDEX_OF_UV)
    given = {key: settings.get(key) for key in names}
    return [f"{key} {value!r}" for key, value in given.items() if value not in (None, False, "auto")]


def _absolute(source: str) -> str:
    if "://" in source:
        from envsync.launch.variables import without_user

        return without_user(source)
    from posixpath import normpath

    return normpath(source if source.startswith("/") else f"{os.getcwd()}/{source}")


def _find(start: str, seen: dict[str, str]) -> Place:
    """Find the lock files here or in the nearest parent.

    One listing a level tells which candidates are there and which are not, and what else is there that counts.

    :param start: where to begin, as a prefix
    """
    project: str | None = None
    pin = ""
    for directory in _upwards(start):
        try:
            names = _files(directory or ".")
        except OSError as error:
            raise _usage_error(f"cannot look for a lock file in `{directory or '.'}`: {error.strerror}") from error
        if project is None and PROJECT in names:
            project = directory
        if not pin:
            pin = next((directory + name for name in PINS if name in names), "")
        place = Place(directory, _project(directory, seen, is_there=PROJECT in names))
        place.names = [name for name in CANDIDATES if name in names]
        if place.names or isinstance(place.table.get("lock"), str):
            place.member = _below(directory, directory if project is None else project) or "."
            place.pin = _below(directory, pin) if pin else ""
            return place
    raise _nothing_found(start)


def _below(directory: str, path: str) -> str:
    """Return a path relative to a directory that is above it."""
    if path.startswith(directory) and "../" not in path[len(directory) :]:
        return path[len(directory) :].rstrip("/")
    return "/".join(_steps(path)[len(_steps(directory)) :])


def _upwards(start: str) -> "Iterator[str]":
    """Yield a directory and all above it, as prefixes."""
    yield start
    if start:
        steps = _steps(start)
        yield from ("/".join(["", *steps[:count], ""]) for count in range(len(steps) - 1, -1, -1))
        return
    try:
        levels = os.getcwd().count("/")
    except OSError as error:
        hint = "go to a directory that is there: `cd /`"
        raise _usage_error(f"the working directory cannot be named: {error.strerror}", hint) from error
    yield from ("../" * count for count in range(1, levels + 1))


def _standing(place: Place, lock: str, start: str) -> tuple[str, str | None]:
    """Name the nearest project at or above where one stands, relative to the lock file, and the pin if it was seen.

    If the way from one to the other was not gone, one listing of each directory in between; none if one stands in that
    of the lock file itself, or elsewhere. Then nobody has looked for a pin in that.

    :param start: where one stands, as a prefix
    """
    directory = _directory(lock)
    if place.member is not None and place.directory == directory:
        return place.member, place.pin
    member, pin = ".", None
    for prefix, below in _between(directory, start):
        names = _telling(prefix)
        if member == "." and PROJECT in names:
            member = below
        if pin is None:
            pin = next((f"{below}/{name}" for name in PINS if name in names), None)
    return member, pin


def _telling(prefix: str) -> "Sequence[str]":
    """List a directory, as far as it tells a project or a pin; it may be one that cannot be listed."""
    try:
        return _files_there(prefix)
    except OSError:
        return [name for name in (PROJECT, *PINS) if _is_file(prefix + name)]


def _decides(  # noqa: PLR0917
    member: str, place: Place, lock: str, data: bytes, settings: "Settings", seen: dict[str, str]
) -> bool:
    """Tell whether the member that one stands in decides what is installed.

    If members are named, or all are meant, it still says which groups are installed if nothing is said of groups. One
    that is named alone says that itself, in a newer lock file. Where nobody says it, the groups are the same for all.

    :param data: the lock file
    :param seen: is told the checksum of what is read
    """
    packages = settings.get("package")
    if not (packages or settings.get("all_packages")):
        return True
    is_newer = _revision(data) >= DEFAULTS_SINCE
    if is_newer and isinstance(packages, list) and len(set(map(options.normalized, packages))) == 1:
        return False
    directory = _directory(lock)
    texts = [data, place.project if place.directory == directory else _project(directory, seen)]
    texts += [] if is_newer else [_project(f"{directory}{member}/", seen)]
    return any(DEFAULTS in text for text in texts)


def _revision(data: bytes) -> int:
    """Return the revision of a uv.lock; 0 if it does not say."""
    number = data.partition(b"\nrevision = ")[2].partition(b"\n")[0].strip()
    return int(number) if number.isdigit() else 0


def _between(directory: str, start: str) -> "list[tuple[str, str]]":
    """Return where one stands and all directories above it but for the lock file's own, and both as seen from there."""
    if directory == start:
        return []
    try:
        here, there = _steps(start), _steps(directory)
    except OSError:  # the working directory is gone: then one stands nowhere
        return []
    if here[: len(there)] != there:
        return []
    counts = range(len(here), len(there), -1)
    return [("/".join(["", *here[:count], ""]), "/".join(here[len(there) : count])) for count in counts]


def _is_file(path: str) -> bool:
    try:
        return os.stat(path).st_mode & _TYPE == _REGULAR
    except OSError:
        return False


def _steps(path: str) -> list[str]:
    """Return the names that lead from the root to a path, as it is written.

    :raises OSError: it is relative, and the working directory is gone
    """
    steps: list[str] = []
    for step in (path if path.startswith("/") else f"{os.getcwd()}/{path}").split("/"):
        if step == "..":
            del steps[-1:]
        elif step not in ("", "."):
            steps.append(step)
    return steps


def _best(directory: str, names: list[str]) -> tuple[str, bytes]:
    """Read the lock file that is meant of those in a directory.

    :raises UsageError: there are several of one rank
    """
    for rank in RANKS if len(names) > 1 else ():
        able = [(name, data) for name in rank if name in names and (data := _readable(directory, name)) is not None]
        if len(able) > 1:
            place = f"`{directory}`" if directory else "this directory"
            raise _usage_error(
                f"several lock files in {place}: {', '.join(name for name, _ in able)}",
                hint=f"choose one: `envsync sync --lock {directory}{able[0][0]}`",
            )
        if able:
            return directory + able[0][0], able[0][1]
    return directory + names[0], read(directory + names[0])


def _readable(directory: str, name: str) -> bytes | None:
    """Read a lock file, unless it surely cannot be read: it is for others, or of a version that is not read.

    One that is empty, or half of one, is just being written: it is the one that is meant all the same.
    """
    try:
        data = content_of_named(directory + name)
    except (PermissionError, IsADirectoryError):
        return None
    except OSError:
        return read(directory + name)
    key, known = READ.get(name, (b"", ()))
    _, found, version = (b"\n" + data).partition(key) if key else (b"", b"", b"")
    return data if not found or version.startswith(known) else None


def _nothing_found(start: str) -> "UsageError":
    from envsync.errors import remedies

    return _usage_error(
        f"no lock file ({', '.join(CANDIDATES)}) in `{'/' + '/'.join(_steps(start))}` or any of its parents",
        hint=remedies.first_lock(_files(start or ".")),
    )


def _files(directory: str) -> list[str]:
    """List a directory without the directories in it, which may have any name."""
    try:
        return _files_there(directory)
    except OSError:  # it may pass
        from envsync.system.patience import reading

        return reading(_files_there, directory)


def _files_there(directory: str) -> list[str]:
    """The listing says what is a directory (`d_type` in readdir(3)): on most filesystems, that costs nothing more."""
    return [entry.name for entry in os.scandir(directory) if not entry.is_dir(follow_symlinks=False)]


def _project(directory: str, seen: dict[str, str], *, is_there: bool = True) -> bytes:
    """Read the pyproject.toml in a directory; empty if there is none, or a directory of that name.

    :param seen: is told the checksum of the file: it may be an input, too, and is not read a second time
    """
    path = directory + PROJECT
    try:
        data = content_if_there(path) if is_there else b""
    except IsADirectoryError:
        data = b""
    except OSError as error:
        raise _usage_error(f"cannot read `{path}`: {error.strerror}") from error
    seen[path] = checksum(data)
    return data


def _table(data: bytes, path: str) -> "Settings":
    """Return what `[tool.envsync]` says in a pyproject.toml; empty if there is none."""
    if b"envsync" not in data:
        return {}
    table = plain_table(data)
    if table is None:
        table = _parsed_table(data, path)
    return options.from_table(table, path)


def plain_table(data: bytes) -> "Mapping[str, object] | None":
    """Read a `[tool.envsync]` that holds nothing but one-line strings and booleans, without a TOML parser.

    :returns: the table, empty if there surely is none, or None if only a TOML parser can tell
    """
    if b'"""' in data or b"'''" in data or b"\\" in data:
        return None
    table: dict[str, object] = {}
    inside = False
    for raw in data.decode("utf-8", "replace").split("\n"):  # nothing else ends a line in TOML
        line = raw.strip()
        if line.startswith("["):
            squeezed = line.replace(" ", "").replace("\t", "")
            inside = line == "[tool.envsync]"
            if not inside and ("envsync" in line or squeezed == "[tool]"):
                return None
        elif not inside:
            if "envsync" in line:
                return None
        elif line and not line.startswith("#"):
            name, _, value = (part.strip() for part in line.partition("="))
            if not name.replace("-", "").isalnum():
                return None
            if value in ("true", "false"):
                table[name] = value == "true"
            elif len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" and value.count(value[0]) == 2:
                table[name] = value[1:-1]
            else:
                return None
    return table


def _parsed_table(data: bytes, path: str) -> "Mapping[str, object]":
    import tomllib

    try:
        table: object = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _usage_error(f"cannot parse `{path}`: {error}") from error
    for name in ("tool", "envsync"):
        table = table.get(name, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise _usage_error(f"`tool.envsync` in `{path}` has to be a table")
    return table
