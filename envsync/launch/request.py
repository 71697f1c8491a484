"""What the user asked for: lock file, environment and options, and the digest of them all.

The fast lane builds a request with a handful of file operations and must arrive at the same digest as the slow
path, so both use this module. Which lock file is meant is found in `finding`, what files say of options is read in
`configuration`.

The digest covers the content of every input file, the options that decide what is installed, and implementation,
X.Y, machine and libc family of the target. Where the lock file has references without a hash it also covers the
options that say where wheels come from, and size and mtime of local wheels. It does not cover paths, unless such
references are found by them: the same lock file in two places has one digest. docs/digest.md goes through all of it.
"""

import sys

from envsync.launch import Environment, configuration, finding, options, reading
from envsync.launch.stamp import LocalFile, checksum
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envsync.errors import UsageError
    from envsync.launch.options import Settings, Value

EXACT = ("python_full_version", "implementation_version", "platform_release", "platform_version")
"""The markers that look at more than implementation, X.Y, machine and C library."""
TREES = "directory"
"""What a pylock.toml says that has directories: then its own place belongs to the name, which takes a parser."""
SCRIPT = ".py.lock"
"""How the name of a script's lock file ends (PEP 723, as uv locks it). Its environment is none of the project's."""
BUNDLE = b"\n[tool.envsync.bundle]\n"
"""What the lock file of a bundle says: an environment beside it would lie in the bundle."""
NAMED_LATER = ("{digest}", "{python}")
"""What in the path of an environment only the lock file, or a look at the Python, can tell."""
INDEX_OF_UV = "index_of_uv"
"""What in the settings says that the index is the one of uv's variables: it counts for what has no URL only."""


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
    :ivar data: the lock file, as it was read to find out what is asked for; None if nobody has
    :ivar seen: checksums of further files that were read on the way, by path: they may be inputs, too
    """

    __slots__ = (
        "_key",
        "_pinned",
        "content",
        "data",
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
        data: bytes | None = None,
        seen: dict[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.lock = lock
        self.directory = finding.directory_of(lock)
        self.content = content
        self.env_template = env_template
        self.looks_at = looks_at
        self.member = member
        self.pin = pin
        self.data = data
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
            from envsync.launch.variables import used_by

            chosen = [*self._target(), *_chosen(self.settings, "source", whole=True)]
            lines = [
                "key",
                *chosen,
                *_given(self.settings),
                self.content,
                *used_by(self.lock, core.variables(), reading.content),
            ]
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
                directories = [*finding.between(self.directory, finding.start_of(self.settings)), (self.directory, "")]
                places = (
                    (prefix + name, f"{below}/{name}".lstrip("/"))
                    for prefix, below in directories
                    for name in finding.PINS
                )
                self.pin = next((below for path, below in places if reading.is_file(path)), "")
            path = self.directory + self.pin if self.pin else ""
            self._pinned = path, reading.read_input(path) if path else b""
        return self._pinned

    def may_have(self, inputs: "Sequence[str]") -> bool:
        """Tell whether, of the files that say which Python is wanted, the one that counts is among the further inputs.

        If the lock file was named, nobody has looked into its own directory: one that has come there since the inputs
        were found is seen by the next sync.
        """
        pins = [path for path in inputs if path[path.rfind("/") + 1 :] in finding.PINS]
        if self.pin is None:
            return not any("/" in path for path in pins)
        return pins == ([self.pin] if self.pin else [])

    def replaced(self, **settings: "Value") -> "Request":
        """Return the same request with other settings."""
        asked = {**self.settings, **settings}
        same = self.lock, self.content, self.env_template, self.looks_at
        return Request(asked, *same, member=self.member, pin=self.pin, data=self.data, seen=self.seen)

    def environment(self, digest: str, python: str) -> Environment:
        """Return the environment whose name tells the digest or the Python.

        :param python: as `describe_python` says it
        """
        path = self.env_template.replace("{digest}", digest)
        return Environment(path.replace("{python}", python.split(" ")[1]) if "{python}" in path else path)

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
        path = path if core.is_absolute(path) else self.directory + path
        found = self.seen.get(path) or checksum(reading.content_if_there(path))
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


def is_named_later(template: str) -> bool:
    """Tell whether it takes more than the options to name an environment."""
    return "{" in template and any(name in template for name in NAMED_LATER)


def above_names(template: str) -> str:
    """Return the directory of environments that are named later: the part of the path that is known, as a prefix."""
    for name in NAMED_LATER:
        template = template.partition(name)[0]
    return template[: template.rfind("/") + 1]


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
    return f"{implementation} {release} {core.machine()} {core.libc_family()}"


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
    known = core.kernel()
    return " ".join(f"{name} {known.get(name, full_version)!r}" for name in names if name != TREES)


def resolve(given: "Settings", environ: "Mapping[str, str]", *, placed: bool = True) -> Request:
    """Find the lock file and merge the options.

    :param given: the options of the command line
    :param environ: the process's environment variables
    :param placed: it is about an environment, so that it has to be known where that is
    :raises UsageError: an option makes no sense, or no single lock file can be found
    :raises LockFileError: the lock file cannot be read
    """
    seen: dict[str, str] = {}
    near = said_here(given, environ)
    place = finding.find_place(near, environ, seen)
    lock, data = near.get("lock") or place.table.get("lock"), None
    if not isinstance(lock, str):
        lock, data = finding.best_of(place.directory, place.names)
    settings = _merged(near, place.table, lock, environ)
    template = _template(settings, lock, environ)
    data = reading.read_input(lock) if data is None else data
    looks = looks_at(data) if is_named_later(template) else ()
    if placed and template == finding.directory_of(lock) + ".venv" and "env" not in settings and BUNDLE in data:
        raise _in_bundle(lock)
    is_workspace = finding.base_name(lock) == finding.MEMBERS
    member, pin = finding.standing(place, lock, finding.start_of(near)) if is_workspace else (".", "")
    if member != "." and not finding.decides(member, place, lock, data, settings, seen):
        member = "."
    if settings.get("python"):
        pin = ""
    return Request(settings, lock, checksum(data), template, looks, member=member, pin=pin, data=data, seen=seen)


def _in_bundle(lock: str) -> "UsageError":
    hint = "name one on a disk of this node: `envsync sync --env '/var/tmp/{user}/{digest}'`"
    return options.usage_error(
        f"`{lock}` is the lock file of a bundle, and no environment is named: one beside it would lie in the bundle",
        hint=hint,
    )


def settings_here(given: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Merge the options as `resolve` does, but for a command that needs no lock file.

    :raises UsageError: an option makes no sense
    """
    from envsync.errors import UsageError

    near = said_here(given, environ)
    try:
        place = finding.find_place(near, environ, {})
    except UsageError:
        if near.get("lock"):
            raise
        # No lock file: then the table is the one of this directory
        place = finding.Place("", finding.project_of("", {}))
        place.settle(environ)
    lock = near.get("lock") or place.table.get("lock") or "".join(place.names[:1])
    return _merged(near, place.table, str(lock), environ)


def said_here(given: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Merge the command line with our variables, and with the one of uv's that says where to look."""
    near = options.over(given, options.from_variables(environ))
    if environ.get("UV_PROJECT") and not near.get("project"):
        near["project"] = environ["UV_PROJECT"]
    near = configuration.at_home(near, environ)
    if finding.go_to_directory(given, environ):
        # Who reads a message stands where the command was typed.
        key = "lock" if near.get("lock") else "project"
        named = "" if near.get(key) == "." else str(near.get(key, ""))
        near[key] = named if core.is_absolute(named) else f"{core.getcwd().rstrip('/')}/{named}"
    return near


def _merged(near: "Settings", table: "Settings", lock: str, environ: "Mapping[str, str]") -> "Settings":
    """Merge what the command line and our variables say with uv's variables, if uv has locked it, and the file."""
    script = lock.endswith(SCRIPT)
    if script or finding.base_name(lock) == finding.MEMBERS:
        said = options.from_variables(environ, of_uv=True)
        if isinstance(said.get("env"), str):
            said["env"] = configuration.beside(finding.directory_of(lock), str(said["env"]))
        if script:  # neither the project's environment nor what of a project is to be installed is meant for it
            for key in ("env", *(option.key for option in options.CHOICE)):
                said.pop(key, None)
        if said.get("index_url") and not near.get("index_url"):
            said[INDEX_OF_UV] = True
        near = options.over(near, said)
    if script:
        table = {key: value for key, value in table.items() if key != "env"}
    settings = options.over(near, table)
    if not settings.get("no_config"):
        said = configuration.shared(environ, finding.directory_of(lock))
        if script and "{digest}" not in str(said.get("env", "")):
            said.pop("env", None)
        settings = options.over(settings, said)
    return configuration.filled(configuration.at_home(settings, environ), environ)


def _template(settings: "Settings", lock: str, environ: "Mapping[str, str]") -> str:
    """Return the environment's path, with `{digest}` as it is written."""
    template = settings.get("env")
    if settings.get("active") and environ.get("VIRTUAL_ENV"):
        template = core.slashed(environ["VIRTUAL_ENV"])
    if not isinstance(template, str):
        is_script = lock.endswith(SCRIPT)
        template = _of_script(settings, lock, environ) if is_script else finding.directory_of(lock) + ".venv"
    if not template.strip("/"):
        raise options.usage_error("the environment cannot be the root directory or an empty path")
    return template.rstrip("/")


def _of_script(settings: "Settings", lock: str, environ: "Mapping[str, str]") -> str:
    """Return where the environment of a script is if nothing is said: in the cache, under its name."""
    cache = settings.get("cache_dir") or environ.get("XDG_CACHE_HOME", "") + "/envsync"
    home = configuration.home_of(environ)
    if cache == "/envsync" and home:
        cache = f"{home.rstrip('/')}{core.CACHES}/envsync"
    if cache == "/envsync":
        hint = "name an environment for the script: `envsync sync --env '.venvs/{digest}'`"
        raise options.usage_error(
            f"there is no place for the environment of a script: {core.HOME} is not set, or no absolute path", hint=hint
        )
    return f"{cache}/environments/{finding.base_name(lock).removesuffix(SCRIPT)}-{{digest}}"


def with_script(settings: "Settings", words: "list[str]", environ: "Mapping[str, str]") -> "tuple[Settings, list[str]]":
    """Have a script that has a lock file beside it run in its own environment. That is one look, for scripts only.

    :param words: the command
    """
    lock = words[0] + ".lock" if words and words[0].endswith(".py") else ""
    named = settings.get("lock") or environ.get("ENVSYNC_LOCK")
    if not lock or named not in (None, "", lock) or not reading.is_file(lock):
        return settings, words
    return {**settings, "lock": lock}, ["python", *words]


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

    return normpath(source if core.is_absolute(source) else f"{core.getcwd()}/{source}")
