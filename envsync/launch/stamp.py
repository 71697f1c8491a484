"""The stamp: one small text file that says the environment matches a digest, and how to see that it still does.

It is written last, after everything it vouches for, always as a new inode renamed into place, and removed before
anything it vouches for is touched: present and fitting means current, anything else means "don't know". One
`key value` a line, which takes no parser to read, and the seal (`seal`), so that a torn or damaged stamp is no stamp.

What it records of the environment is what can be compared for the price of an open or a stat:

- `in-use`: the inode of the in-use lock. A directory that was copied or recreated has another one.
- `config`: size and mtime_ns of pyvenv.cfg. A remade environment has another one.
- `site`: inode and mtime_ns of site-packages by its absolute path. Whoever adds or removes a top-level entry (pip,
  uv, `rm`) changes the mtime; whoever moves the environment changes the path, and the scripts' `#!` lines with it.
- `guard`: inode and mtime_ns of a file in site-packages that no program reads (a .dist-info's REQUESTED): purges of
  scratch filesystems remove files and leave directories, which changes nothing else of this. Where directories are
  linked into a store, one more in there.
- `commands`: what was in `bin`. If exec does not find one of these, its interpreter is gone, not the command.
- `further`: an input file besides the lock file: the checksum that counts for the digest, and up to eight of the file's
  content for which that was found out. A comment in a pyproject.toml changes the one, not the other. A launch hashes
  the file, and takes what counts from here; whoever meets another content has to parse it.
- `checked`: the lock file was found to have what these files ask for, with this content; `--locked` asks for that.
- `linked`, `copied`: a directory that something is linked to or was built of, and what stands for all that only a sync
  looks at (`envsync.building.trees`). A launch passes it over.
- `racy`: site-packages was changed within the same clock tick as the stamp was written, so an equal mtime
  proves nothing (git knows this as the racy index). The processes that waited for this very sync may use it.
"""

from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

KEPT = 8
"""So many base interpreters and kernels are named: nodes with images of different dates do not drive each other out."""
OF_THE_REQUEST = (
    "python",
    "member",
    "inputs",
    "variables",
    "unhashed",
    "placed",
    "conditions",
    "base",
    "bases",
    "kernel",
    "kernels",
    "local_files",
    "checked",
    "lock",
    "trees",
)
"""What a stamp says of what was asked for, and not of the environment as it is."""
HEADER = "envsync-stamp 2"


class Site:
    """A site-packages directory, or a guard, as it was: absolute path, inode, mtime in ns."""

    __slots__ = ("inode", "mtime_ns", "path")

    def __init__(self, path: str, inode: int, mtime_ns: int) -> None:
        self.path = path
        self.inode = inode
        self.mtime_ns = mtime_ns


class LocalFile:
    """A local wheel that was used without a hash: its size in bytes and mtime in ns have to vouch for it.

    :ivar direct: the lock file names this very file, so that it is part of the digest; otherwise it was found in a
        directory of wheels
    """

    __slots__ = ("direct", "mtime_ns", "path", "size")

    def __init__(self, path: str, size: int, mtime_ns: int, *, direct: bool) -> None:
        self.path = path
        self.size = size
        self.mtime_ns = mtime_ns
        self.direct = direct


class Input:
    """A further input file.

    :ivar path: relative to the lock file's directory, or absolute
    :ivar counts: the checksum of what decides in it, which the digest has
    :ivar seen: checksums of its content, the latest last, for which that is so
    """

    __slots__ = ("counts", "path", "seen")

    def __init__(self, path: str, counts: str, seen: "list[str]") -> None:
        self.path = path
        self.counts = counts
        self.seen = seen


class Tree:
    """A directory that something was built of or is linked to.

    :ivar path: absolute
    :ivar signature: stands for what only a sync looks at
    :ivar editable: it is linked to
    """

    __slots__ = ("editable", "path", "signature")

    def __init__(self, path: str, signature: str, *, editable: bool) -> None:
        self.path = path
        self.signature = signature
        self.editable = editable


class Stamp:
    """What a stamp says.

    :ivar member: of a workspace, which one it is for: its directory, relative to the lock file's
    :ivar lock: the name of the lock file, without its directory; nothing is compared with it
    :ivar inputs: the further input files, in order
    :ivar checked: checksums of the files that the lock file was compared with, and their paths; none if it was not
        compared, or does not have all that they ask for
    :ivar variables: the names of environment variables that decide what is installed
    :ivar placed: directories, or references without a hash, are found by paths relative to the lock file
    :ivar conditions: stands for how the markers come out that look at more than the digest covers; empty if none does
    :ivar base: the path of the base interpreter, if they look at its full version
    :ivar bases: size in bytes and mtime in ns of it, as it was seen, on whichever host, to come out so
    :ivar kernel: what they look at of the kernel, by the names of the markers
    :ivar kernels: stand for what it was, on whichever host it was seen to come out so
    :ivar network: it is on a network filesystem, as the one saw it who synced it
    """

    __slots__ = (
        "base",
        "bases",
        "checked",
        "commands",
        "conditions",
        "config",
        "digest",
        "environment",
        "guards",
        "in_use",
        "inputs",
        "kernel",
        "kernels",
        "local_files",
        "lock",
        "member",
        "network",
        "placed",
        "python",
        "racy",
        "sites",
        "trees",
        "unhashed",
        "variables",
    )

    def __init__(self) -> None:
        self.digest = ""
        self.lock = ""
        self.python = ""
        self.member = "."
        self.environment = ""
        self.in_use = 0
        self.config = ""
        self.commands: list[str] = []
        self.sites: list[Site] = []
        self.guards: list[Site] = []
        self.inputs: list[Input] = []
        self.checked: list[tuple[str, str]] = []
        self.variables: list[str] = []
        self.unhashed = False
        self.placed = False
        self.conditions = ""
        self.base = ""
        self.bases: list[tuple[int, int]] = []
        self.kernel: list[str] = []
        self.kernels: list[str] = []
        self.local_files: list[LocalFile] = []
        self.trees: list[Tree] = []
        self.racy = False
        self.network = False


def checksum(data: bytes) -> str:
    """Return 32 hexadecimal digits that stand for the data. Also the hash of input files and of the digest."""
    return blake2b(data, digest_size=16).hexdigest()


def seal(body: bytes) -> bytes:
    """Append the line that state files end with: a checksum of the lines before."""
    return body + b"end " + checksum(body).encode() + b"\n"


def unseal(data: bytes) -> bytes:
    """Take that line off again.

    :raises ValueError: it does not fit: the file was cut, or changed, or never sealed
    """
    body, _, end = data.rpartition(b"end ")
    if end != checksum(body).encode() + b"\n":
        raise ValueError("its seal does not fit")
    return body


def latest(seen: "list[T]", here: "T") -> "list[T]":
    """Add to what was seen elsewhere what is seen here, as the last, and keep the last `KEPT`."""
    return [*(item for item in seen if item != here), here][-KEPT:]


def dump(stamp: Stamp) -> bytes:
    """Serialize a stamp."""
    lines = [
        HEADER,
        "digest " + stamp.digest,
        "python " + stamp.python,
        "environment " + quote(stamp.environment),
        f"in-use {stamp.in_use}",
        "config " + stamp.config,
        "commands " + " ".join(stamp.commands),
    ]
    lines += [f"site {site.inode} {site.mtime_ns} {quote(site.path)}" for site in stamp.sites]
    lines += [f"guard {guard.inode} {guard.mtime_ns} {quote(guard.path)}" for guard in stamp.guards]
    lines += [f"further {each.counts} {','.join(each.seen)} {quote(each.path)}" for each in stamp.inputs]
    lines += [f"checked {content} {quote(path)}" for content, path in stamp.checked]
    if stamp.member != ".":
        lines.append("member " + quote(stamp.member))
    lines += ["variable " + name for name in stamp.variables]
    lines += [
        f"{'direct' if local.direct else 'found'} {local.size} {local.mtime_ns} {quote(local.path)}"
        for local in stamp.local_files
    ]
    lines += [f"{'linked' if tree.editable else 'copied'} {tree.signature} {quote(tree.path)}" for tree in stamp.trees]
    if stamp.lock:
        lines.append("lock " + quote(stamp.lock))
    if stamp.conditions:
        lines.append("conditions " + stamp.conditions)
    if stamp.base:
        lines.append("base " + quote(stamp.base))
    lines += [f"seen {size} {mtime_ns}" for size, mtime_ns in stamp.bases]
    lines += ["kernel " + name for name in stamp.kernel]
    lines += ["on " + kernel for kernel in stamp.kernels]
    lines += ["unhashed"] * stamp.unhashed + ["placed"] * stamp.placed + ["racy"] * stamp.racy
    lines += ["network"] * stamp.network
    return seal("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")


def load(data: bytes) -> Stamp | None:
    """Read a stamp. Returns None for one that is damaged, senseless, of another format, or says what is not known here.

    Then it vouches for nothing.
    """
    try:
        return None if b"\0" in data else _parsed(unseal(data))
    except ValueError:
        return None


def _parsed(body: bytes) -> Stamp | None:  # noqa: PLR0912, PLR0915  # a branch for each key
    lines = body.decode("utf-8", "surrogateescape").split("\n")
    if lines[0] != HEADER:
        return None
    stamp = Stamp()
    for line in lines[1:]:
        key, _, value = line.partition(" ")
        if key == "digest":
            stamp.digest = value
        elif key == "lock":
            stamp.lock = unquote(value)
        elif key == "python":
            stamp.python = value
        elif key == "environment":
            stamp.environment = unquote(value)
        elif key == "in-use":
            stamp.in_use = int(value)
        elif key == "config":
            stamp.config = value
        elif key == "commands":
            stamp.commands = value.split()
        elif key in ("site", "guard"):
            inode, mtime_ns, path = value.split(" ", 2)
            site = Site(unquote(path), int(inode), int(mtime_ns))
            (stamp.sites if key == "site" else stamp.guards).append(site)
        elif key == "further":
            counts, seen, path = value.split(" ", 2)
            stamp.inputs.append(Input(unquote(path), counts, seen.split(",")))
        elif key == "checked":
            content, path = value.split(" ", 1)
            stamp.checked.append((content, unquote(path)))
        elif key == "member":
            stamp.member = unquote(value)
        elif key == "variable":
            stamp.variables.append(value)
        elif key == "conditions":
            stamp.conditions = value
        elif key == "base":
            stamp.base = unquote(value)
        elif key == "seen":
            size, mtime_ns = value.split(" ")
            stamp.bases.append((int(size), int(mtime_ns)))
        elif key == "kernel":
            stamp.kernel.append(value)
        elif key == "on":
            stamp.kernels.append(value)
        elif key in ("direct", "found"):
            size, mtime_ns, path = value.split(" ", 2)
            local = LocalFile(unquote(path), int(size), int(mtime_ns), direct=key == "direct")
            stamp.local_files.append(local)
        elif key in ("linked", "copied"):
            signature, path = value.split(" ", 1)
            stamp.trees.append(Tree(unquote(path), signature, editable=key == "linked"))
        elif key == "network":
            stamp.network = True
        elif key == "unhashed":
            stamp.unhashed = True
        elif key == "placed":
            stamp.placed = True
        elif key == "racy":
            stamp.racy = True
        elif key:
            return None  # a newer envsync has written it; whatever that is, it may be a condition
    return stamp


def is_newer(data: bytes) -> bool:
    """Tell whether a stamp that cannot be read was written by a newer envsync."""
    head, _, version = data.partition(b"\n")[0].partition(b" ")
    known = HEADER.rpartition(" ")[2].encode()
    return head == b"envsync-stamp" and version.isdigit() and (len(version), version) > (len(known), known)


def quote(path: str) -> str:
    """Write a path in one line."""
    return path.replace("\\", "\\\\").replace("\n", "\\n")


def unquote(text: str) -> str:
    """Read what `quote` has written."""
    if "\\" not in text:
        return text
    return "\\".join(part.replace("\\n", "\n") for part in text.split("\\\\"))
