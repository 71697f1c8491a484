"""Which lock file is meant, and where one stands: the directories from here upwards, and what is in them.

One listing a level tells which lock files are there and which are not; nothing is read but what may be an input.
"""

from envsync.launch import configuration, options, reading
from envsync.launch.stamp import checksum
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from envsync.errors import UsageError
    from envsync.launch.options import Settings, Value

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
PROJECT = "pyproject.toml"
DEFAULTS = b"default-groups"
"""The key in `[tool.uv]` that says which groups are installed if nothing is said of groups."""
DEFAULTS_SINCE = 5
"""The revision of uv.lock from which on that is in there, too."""
PINS = (".python-version", ".python-versions")
"""What says which Python a project of uv's wants: in the nearest directory that has one, up to the lock file's."""


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
        self.table = configuration.table_of(project, directory + PROJECT)
        self.names: list[str] = []
        self.member: str | None = None
        self.pin: str | None = None

    def settle(self, environ: "Mapping[str, str]") -> None:
        """Have the options in the table mean what they do: variables, and paths relative to its file."""
        configuration.expand(self.table, environ, self.directory + PROJECT)
        configuration.anchor(self.table, self.directory)


def go_to(given: "Settings", environ: "Mapping[str, str]") -> None:
    """Change to the directory that a command line, or a variable, names: what follows is as if one stood there.

    :raises UsageError: there is none
    """
    directory = go_to_directory(given, environ)
    if isinstance(directory, str):
        path = configuration.below_home(directory, environ) if configuration.is_at_home(directory) else directory
        try:
            os.chdir(path)
        except OSError as error:
            raise options.usage_error(f"cannot go to directory `{path}`: {error.strerror}") from error


def go_to_directory(given: "Settings", environ: "Mapping[str, str]") -> "Value | None":
    found = [given.get("directory"), *map(environ.get, ("ENVSYNC_DIRECTORY", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY"))]
    return next((each for each in found if each), None)


def find_place(near: "Settings", environ: "Mapping[str, str]", seen: dict[str, str]) -> Place:
    """Find out in which directory the lock file is, and what is said there."""
    lock = near.get("lock")
    if isinstance(lock, str):
        place = Place(directory_of(lock), project_of(directory_of(lock), seen))
    else:
        place = _find(start_of(near), seen)
    place.settle(environ)
    return place


def start_of(settings: "Settings") -> str:
    """Return where to look for a project, as a prefix: `--project`, or else where one stands."""
    project = settings.get("project") or ""
    assert isinstance(project, str)
    return project.rstrip("/") + "/" if project else ""


def _find(start: str, seen: dict[str, str]) -> Place:
    """Find the lock files here or in the nearest parent.

    One listing a level tells which candidates are there and which are not, and what else is there that counts.

    :param start: where to begin, as a prefix
    """
    project: str | None = None
    pin = ""
    for directory in _upwards(start):
        try:
            names = files_in(directory or ".")
        except OSError as error:
            raise options.usage_error(
                f"cannot look for a lock file in `{directory or '.'}`: {error.strerror}"
            ) from error
        if project is None and PROJECT in names:
            project = directory
        if not pin:
            pin = next((directory + name for name in PINS if name in names), "")
        place = Place(directory, project_of(directory, seen, is_there=PROJECT in names))
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
        yield from (_prefix(steps[:count]) for count in range(len(steps) - 1, 0, -1))
        return
    try:
        levels = core.getcwd().count("/")
    except OSError as error:
        hint = "go to a directory that is there: `cd /`"
        raise options.usage_error(f"the working directory cannot be named: {error.strerror}", hint=hint) from error
    yield from ("../" * count for count in range(1, levels + 1))


def standing(place: Place, lock: str, start: str) -> tuple[str, str | None]:
    """Name the nearest project at or above where one stands, relative to the lock file, and the pin if it was seen.

    If the way from one to the other was not gone, one listing of each directory in between; none if one stands in that
    of the lock file itself, or elsewhere. Then nobody has looked for a pin in that.

    :param start: where one stands, as a prefix
    """
    directory = directory_of(lock)
    if place.member is not None and place.directory == directory:
        return place.member, place.pin
    member, pin = ".", None
    for prefix, below in between(directory, start):
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
        return [name for name in (PROJECT, *PINS) if reading.is_file(prefix + name)]


def decides(  # noqa: PLR0917
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
    directory = directory_of(lock)
    texts = [data, place.project if place.directory == directory else project_of(directory, seen)]
    texts += [] if is_newer else [project_of(f"{directory}{member}/", seen)]
    return any(DEFAULTS in text for text in texts)


def _revision(data: bytes) -> int:
    """Return the revision of a uv.lock; 0 if it does not say."""
    number = data.partition(b"\nrevision = ")[2].partition(b"\n")[0].strip()
    return int(number) if number.isdigit() else 0


def between(directory: str, start: str) -> "list[tuple[str, str]]":
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
    return [(_prefix(here[:count]), "/".join(here[len(there) : count])) for count in counts]


def _steps(path: str) -> list[str]:
    """Return the root, and the names that lead from it to a path, as it is written.

    :raises OSError: it is relative, and the working directory is gone
    """
    root, rest = core.split_root(path if core.is_absolute(path) else f"{core.getcwd()}/{path}")
    steps = [root]
    for step in rest.split("/"):
        if step == "..":
            del steps[max(1, len(steps) - 1) :]
        elif step not in ("", "."):
            steps.append(step)
    return steps


def _prefix(steps: list[str]) -> str:
    """Return the prefix of what is in a directory, of which one has the steps."""
    return steps[0] + "".join(f"{step}/" for step in steps[1:])


def best_of(directory: str, names: list[str]) -> tuple[str, bytes]:
    """Read the lock file that is meant of those in a directory.

    :raises UsageError: there are several of one rank
    """
    for rank in RANKS if len(names) > 1 else ():
        able = [(name, data) for name in rank if name in names and (data := _readable(directory, name)) is not None]
        if len(able) > 1:
            place = f"`{directory}`" if directory else "this directory"
            raise options.usage_error(
                f"several lock files in {place}: {', '.join(name for name, _ in able)}",
                hint=f"choose one: `envsync sync --lock {directory}{able[0][0]}`",
            )
        if able:
            return directory + able[0][0], able[0][1]
    return directory + names[0], reading.read_input(directory + names[0])


def _readable(directory: str, name: str) -> bytes | None:
    """Read a lock file, unless it surely cannot be read: it is for others, or of a version that is not read.

    One that is empty, or half of one, is just being written: it is the one that is meant all the same.
    """
    try:
        data = reading.content_of_named(directory + name)
    except (PermissionError, IsADirectoryError):
        return None
    except OSError:
        return reading.read_input(directory + name)
    key, known = READ.get(name, (b"", ()))
    _, found, version = (b"\n" + data).partition(key) if key else (b"", b"", b"")
    return data if not found or version.startswith(known) else None


def _nothing_found(start: str) -> "UsageError":
    from envsync.errors import remedies

    prefix = _prefix(_steps(start))
    root, below = core.split_root(prefix)
    directory = prefix.rstrip("/") if below.strip("/") else root
    return options.usage_error(
        f"no lock file ({', '.join(CANDIDATES)}) in `{directory}` or any of its parents",
        hint=remedies.first_lock(files_in(start or ".")),
    )


def files_in(directory: str) -> list[str]:
    """List a directory without the directories in it, which may have any name."""
    return reading.again_if_refused(_files_there, directory)


def _files_there(directory: str) -> list[str]:
    """The listing says what is a directory (`d_type` in readdir(3)): on most filesystems, that costs nothing more."""
    return [entry.name for entry in os.scandir(directory) if not entry.is_dir(follow_symlinks=False)]


def project_of(directory: str, seen: dict[str, str], *, is_there: bool = True) -> bytes:
    """Read the pyproject.toml in a directory; empty if there is none, or a directory of that name.

    :param seen: is told the checksum of the file: it may be an input, too, and is not read a second time
    """
    path = directory + PROJECT
    try:
        data = reading.content_if_there(path) if is_there else b""
    except IsADirectoryError:
        data = b""
    except OSError as error:
        raise options.usage_error(f"cannot read `{path}`: {error.strerror}") from error
    seen[path] = checksum(data)
    return data


def directory_of(path: str) -> str:
    return path[: path.rfind("/") + 1]


def base_name(path: str) -> str:
    return path[path.rfind("/") + 1 :]
