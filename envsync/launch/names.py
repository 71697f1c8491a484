"""What `{digest}` and `{python}` stand for, remembered beside the environments that are named so.

The name takes what only a parser can tell of a lock file, and a search for the Python that `--python` asks for. Whoever
has found it out the slow way (`envsync.leading.naming`) leaves it in `.envsync-names`, in the directory that holds the
environments. The file there is named by all that needs no parser: the content and the name of the lock file, the
options, the Python that runs envsync, and the format. It has up to sixteen names, each with what it was found by: the
further inputs, variables and local wheels, and how to see that `--python` would still lead to the same interpreter.

It knows the name, or it does not know. A name counts only if all that it was found by is as it was, and if the digest
comes out as it says when it is computed anew. What is damaged, cannot be read or is of another format is not there.

Used by launches that need it, so with built-in modules alone.
"""

import sys

from envsync.launch import reading, request, stamp
from envsync.launch.stamp import Input, LocalFile
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from envsync.launch.request import Request

HEADER = "envsync-names 1"
KEPT = 16
"""So many names one file has: for so many contents of further inputs, or ways to the interpreter."""
DIRECTORY = ".envsync-names"
NOTHING = "-"
"""What is said of a path where nothing is."""


class Name:
    """A name, and what it was found by.

    :ivar digest: the name
    :ivar python: the target Python, as `envsync.launch.request.describe_python` says it
    :ivar version: its full version
    :ivar path: what PATH began with, as far as an interpreter was looked for there
    :ivar seen: what was looked at to find the interpreter, path → `look_at`
    :ivar inputs: the further input files, in order
    :ivar variables: the names of environment variables that decide
    :ivar looks_at: the markers of `EXACT` whose names occur in the inputs
    :ivar unhashed: some reference has no hash
    :ivar placed: such a reference, or a directory, is found by a path relative to the lock file
    :ivar local_files: local wheels that are referred to directly and without a hash
    """

    __slots__ = (
        "digest",
        "inputs",
        "local_files",
        "looks_at",
        "path",
        "placed",
        "python",
        "seen",
        "unhashed",
        "variables",
        "version",
    )

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.python = ""
        self.version = ""
        self.path = ""
        self.seen: dict[str, str] = {}
        self.inputs: list[Input] = []
        self.variables: list[str] = []
        self.looks_at: list[str] = []
        self.unhashed = False
        self.placed = False
        self.local_files: list[LocalFile] = []


def recall(asked: "Request") -> Name | None:
    """Return what `{digest}` and `{python}` stand for, or None for "don't know".

    Of the further inputs, the request knows from here on what it has seen: they are not read again.
    """
    try:
        data = reading.content(path_of(asked))
    except (OSError, ValueError):
        return None
    looked: dict[str, str] = {}
    for name in reversed(load(data)):
        if fits(name, asked, looked):
            return name
    return None


def path_of(asked: "Request") -> str:
    """Return where the names are for what needs no parser.

    :raises OSError: a place is given relative to a working directory that is gone
    """
    own = f"{HEADER}\n{request.own_python()} {sys.version}\n{asked.lock.rpartition('/')[2]}"
    return f"{directory_of(asked)}/{asked.digest(own, unhashed=True)}"


def directory_of(asked: "Request") -> str:
    """Return the directory of all names, beside the environments."""
    return request.above_names(asked.env_template) + DIRECTORY


def fits(name: Name, asked: "Request", looked: dict[str, str]) -> bool:
    """Tell whether a name is the one for a request: nothing that it was found by has changed.

    :param looked: what was looked at for others, to be added to
    """
    if not asked.may_have([each.path for each in name.inputs]):
        return False
    path = core.variable("PATH")
    if name.path and path != name.path and not path.startswith(name.path + ":"):
        return False
    try:
        if any(asked.checksum_of(each.path, keep=True) not in each.seen for each in name.inputs):
            return False
        for seen, state in name.seen.items():
            if seen not in looked:
                looked[seen] = look_at(seen)
            if looked[seen] != state:
                return False
        for local in name.local_files:
            status = os.stat(local.path)
            if (status.st_size, status.st_mtime_ns) != (local.size, local.mtime_ns):
                return False
        return digest_of(name, asked) == name.digest
    except OSError:
        return False


def digest_of(name: Name, asked: "Request") -> str:
    """Compute the digest of a request for what a name was found by.

    It has what the kernel is here, and how variables are set. The host's machine and C library have to be those in the
    description of the Python.
    """
    implementation, _, rest = name.python.partition(" ")
    return asked.digest(
        request.describe_python(implementation, rest.partition(" ")[0]),
        [each.counts for each in name.inputs],
        variables=_variables(name),
        conditions=request.exactly(name.looks_at, name.version),
        unhashed=name.unhashed,
        placed=name.placed,
        local_files=name.local_files,
    )


def _variables(name: Name) -> list[str]:
    if not name.variables:
        return []
    from envsync.launch.variables import describe

    return describe(name.variables, core.variables())


def look_at(path: str) -> str:
    """Return what tells one state of a file or a directory from another, through all links; one operation.

    :raises OSError: it cannot be looked at
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    return f"{status.st_ino}.{status.st_mode:o}.{status.st_size}.{status.st_mtime_ns}"


def dump(names: "Sequence[Name]") -> bytes:
    """Serialize names."""
    lines = [HEADER]
    for name in names:
        lines += ["name " + name.digest, "python " + name.python, "version " + name.version]
        lines += ["path " + stamp.quote(name.path)] if name.path else []
        lines += [f"seen {state} {stamp.quote(path)}" for path, state in name.seen.items()]
        lines += [f"further {each.counts} {','.join(each.seen)} {stamp.quote(each.path)}" for each in name.inputs]
        lines += ["variable " + variable for variable in name.variables]
        lines += ["looks " + marker for marker in name.looks_at]
        lines += [f"direct {local.size} {local.mtime_ns} {stamp.quote(local.path)}" for local in name.local_files]
        lines += ["unhashed"] * name.unhashed + ["placed"] * name.placed
    return stamp.seal("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")


def load(data: bytes) -> list[Name]:
    """Read names. None are in what is damaged, senseless or of another format."""
    try:
        return [] if b"\0" in data else _parsed(stamp.unseal(data))
    except (ValueError, LookupError):
        return []


def _parsed(body: bytes) -> list[Name]:
    lines = body.decode("utf-8", "surrogateescape").split("\n")
    names: list[Name] = []
    for line in lines[1:-1] if lines[0] == HEADER else ():
        key, _, value = line.partition(" ")
        if key == "name":
            names.append(Name(value))
            continue
        _add(names[-1], key, value)
    return names


def _add(name: Name, key: str, value: str) -> None:
    if key == "python":
        name.python = value
    elif key == "version":
        name.version = value
    elif key == "path":
        name.path = stamp.unquote(value)
    elif key == "seen":
        state, path = value.split(" ", 1)
        name.seen[stamp.unquote(path)] = state
    elif key == "further":
        counts, seen, path = value.split(" ", 2)
        name.inputs.append(Input(stamp.unquote(path), counts, seen.split(",")))
    elif key == "variable":
        name.variables.append(value)
    elif key == "looks":
        name.looks_at.append(value)
    elif key == "direct":
        size, mtime_ns, path = value.split(" ", 2)
        name.local_files.append(LocalFile(stamp.unquote(path), int(size), int(mtime_ns), direct=True))
    elif key in ("unhashed", "placed"):
        setattr(name, key, True)
    else:
        raise ValueError(key)
