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
    from collections.abc import Iterable, Mapping, Sequence

    from envsync.errors import UsageError
    from envsync.launch.options import Settings, Value

LARGEST = 1 << 28
"""Bytes of an input or of a file of ours; what is larger is none."""
EXACT = ("python_full_version", "implementation_version", "platform_release", "platform_version")
"""The markers that look at more than implementation, X.Y, machine and C library."""
CANDIDATES = ("pylock.toml", "requirements.txt", "uv.lock")


class Request:
    """A resolved request.

    :ivar settings: the options, command line over environment over pyproject.toml
    :ivar lock: path of the lock file, as it can be opened
    :ivar directory: the lock file's directory as a prefix: empty, or ending in a slash
    :ivar content: checksum of the lock file
    :ivar looks_at: those of `EXACT` that occur in it, if the environment is named by `{digest}`
    :ivar name: what `{digest}` stands for, if it was found out, for `envsync.leading.naming` to leave
    :ivar seen: checksums of further files that were read on the way, by path: they may be inputs, too
    """

    __slots__ = ("_key", "content", "directory", "env_template", "lock", "looks_at", "name", "seen", "settings")

    def __init__(
        self,
        settings: "Settings",
        lock: str,
        content: str,
        env_template: str,
        looks_at: tuple[str, ...] = (),
        *,
        seen: dict[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.lock = lock
        self.directory = lock[: lock.rfind("/") + 1]
        self.content = content
        self.env_template = env_template
        self.looks_at = looks_at
        self.seen: dict[str, str] = {} if seen is None else seen
        self.name: object = None
        self._key = ""

    @property
    def key(self) -> str:
        """Stands for all that is known before the lock file is parsed.

        Those who ask for the same have the same key, and share a failure. So it covers what lets them in, too, user
        information in URLs, which the digest does not.
        """
        if not self._key:
            from envsync.launch.command import variables as environ
            from envsync.launch.variables import used_by

            chosen = [*_chosen(self.settings, "target"), *_chosen(self.settings, "source", whole=True)]
            lines = ["key", *chosen, *_given(self.settings), self.content, *used_by(self.lock, environ(), content)]
            self._key = checksum("\n".join(lines).encode("utf-8", "surrogateescape"))
        return self._key

    def replaced(self, **settings: "Value") -> "Request":
        """Return the same request with other settings."""
        asked = {**self.settings, **settings}
        return Request(asked, self.lock, self.content, self.env_template, self.looks_at, seen=self.seen)

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
        :param placed: whether such a reference is found by a path relative to the lock file
        :param local_files: the local wheels that are referred to directly and without a hash
        """
        lines = ["envsync-digest 2", f"lock {self.content}"]
        lines += [f"input {content}" for content in inputs]
        lines += [f"variable {variable}" for variable in variables]
        lines += _chosen(self.settings, "target")
        lines.append("python " + python)
        if conditions:
            lines.append("conditions " + conditions)
        if unhashed:
            lines += _chosen(self.settings, "source")
            lines += [f"directory {_absolute(self.directory)!r}"] if placed else []
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
    """Return those of `EXACT` that occur in lock files."""
    return tuple(name for name in EXACT if name.encode() in data)


def exactly(names: "Sequence[str]", full_version: str) -> str:
    """Return what a directory named by `{digest}` has in its name besides, if the lock file has such markers.

    An environment that is named by its digest is never changed, so its name has the versions themselves, whatever the
    markers make of them. Empty if there are no such markers.

    :param full_version: of the target
    """
    system = os.uname()
    known = {EXACT[2]: system.release, EXACT[3]: system.version}
    return " ".join(f"{name} {known.get(name, full_version)!r}" for name in names)


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


def resolve(given: "Settings", environ: "Mapping[str, str]") -> Request:
    """Find the lock file and merge the options.

    :param given: the options of the command line
    :param environ: the process's environment variables
    :raises UsageError: an option makes no sense, or no single lock file can be found
    :raises LockFileError: the lock file cannot be read
    """
    seen: dict[str, str] = {}
    settings = _at_home(options.over(given, options.from_variables(environ)), environ)
    lock = settings.get("lock")
    if isinstance(lock, str):
        directory = lock[: lock.rfind("/") + 1]
        table = _table(directory, seen)
    else:
        directory, name, table = _find(seen)
        lock = _beside(directory, name)
    _anchor(table, directory)
    settings = _at_home(options.over(settings, table), environ)
    template = settings.get("env")
    if not isinstance(template, str):
        template = lock[: lock.rfind("/") + 1] + ".venv"
    if not template.strip("/"):
        raise _usage_error("the environment cannot be the root directory or an empty path")
    data = read(lock)
    looks = looks_at(data) if "{digest}" in template else ()
    return Request(settings, lock, checksum(data), template.rstrip("/"), looks, seen=seen)


def settings_here(given: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Merge the options as `resolve` does, but for a command that needs no lock file.

    :raises UsageError: an option makes no sense
    """
    from envsync.errors import UsageError

    settings = _at_home(options.over(given, options.from_variables(environ)), environ)
    lock = settings.get("lock")
    if isinstance(lock, str):
        directory = lock[: lock.rfind("/") + 1]
        table = _table(directory, {})
    else:
        try:
            directory, _, table = _find({})
        except UsageError:  # no lock file, or several: then the table is the one of this directory
            directory, table = "", _table("", {})
    _anchor(table, directory)
    return _at_home(options.over(settings, table), environ)


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
    for key in ("env", "cache_dir", "cache_fallback", "find_links"):
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
    for key in ("lock", "env", "cache_dir", "cache_fallback", "find_links"):
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
            if shapes == "target":
                values = sorted(set(map(options.normalized, value)))
            else:
                values = [item if whole and "://" in item else _absolute(item) for item in value]
            lines += [f"{option.name} {item!r}" for item in values]
        else:
            lines.append(f"{option.name} {value!r}")
    return lines


def _given(settings: "Settings") -> list[str]:
    """Say what decides neither target nor digest, but whether a sync succeeds."""
    names = ("locked", "offline", "cache_dir", "cache_fallback", "link_mode", "allow_empty")
    given = {key: settings.get(key) for key in names}
    return [f"{key} {value!r}" for key, value in given.items() if value not in (None, False, "auto")]


def _absolute(source: str) -> str:
    if "://" in source:
        from envsync.launch.variables import without_user

        return without_user(source)
    from posixpath import normpath

    return normpath(source if source.startswith("/") else f"{os.getcwd()}/{source}")


def _find(seen: dict[str, str]) -> "tuple[str, str, Settings]":
    """Find the lock file here or in the nearest parent: its directory, its name, the options in pyproject.toml.

    One listing a level tells which candidates are there and which are not.

    :param seen: is told the checksums of what is read, by path
    """
    directory = ""
    levels = 0
    while True:
        try:
            names = _names(directory or ".")
        except OSError as error:
            raise _usage_error(f"cannot look for a lock file in `{directory or '.'}`: {error.strerror}") from error
        table = _table(directory, seen, is_there="pyproject.toml" in names)
        if isinstance(table.get("lock"), str):
            return directory, str(table["lock"]), table
        found = [name for name in CANDIDATES if name in names]
        if len(found) > 1:
            place = f"`{directory}`" if directory else "this directory"
            raise _usage_error(
                f"several lock files in {place}: {', '.join(found)}",
                hint=f"choose one: `envsync sync --lock {directory}{found[0]}`",
            )
        if found:
            return directory, found[0], table
        try:
            levels = levels or os.getcwd().count("/")
        except OSError as error:
            hint = "go to a directory that is there: `cd /`"
            raise _usage_error(f"the working directory cannot be named: {error.strerror}", hint) from error
        if directory.count("/") >= levels:
            raise _usage_error(
                f"no lock file ({', '.join(CANDIDATES)}) in `{os.getcwd()}` or any of its parents",
                hint="name one with --lock, or make one: `uv export --format pylock.toml --output-file pylock.toml`",
            )
        directory += "../"


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:  # it may pass
        from envsync.system.patience import reading

        return reading(os.listdir, directory)


def _table(directory: str, seen: dict[str, str], *, is_there: bool = True) -> "Settings":
    """Read `[tool.envsync]` of the pyproject.toml in a directory; empty if there is none.

    :param seen: is told the checksum of the file: it may be an input, too, and is not read a second time
    """
    path = directory + "pyproject.toml"
    try:
        data = content_if_there(path) if is_there else b""
    except OSError as error:
        raise _usage_error(f"cannot read `{path}`: {error.strerror}") from error
    seen[path] = checksum(data)
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
