"""The table of docs/filesystems.md as data: what a filesystem does, and what becomes of eight syncs at once on it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One behaviour.

    :ivar mount: settings of the lab's `oddfs-up` that make it
    :ivar faults: what makes it in a process (`tests.odd.faults`); None if only a filesystem can
    :ivar kind: the environment lock that is recorded
    :ivar in_use: running commands are seen
    :ivar reason: why they are not, as the refusal of what needs that says it
    :ivar shortfall: by what `doctor` says it: a level, and a part of what it says
    """

    name: str
    mount: tuple[str, ...]
    faults: dict[str, Any] | None
    kind: str = "flock"
    in_use: bool = True
    reason: str = ""
    shortfall: tuple[str, str] = ("fine", "flock excludes")


def _no_flock(name: str, words: str) -> Row:
    return Row(
        f"flock answers {name}",
        (f"flock={name}",),
        {"flock": name},
        "lease",
        False,
        rf"flock is refused \({words}\)",
        ("unsafe", "flock is refused"),
    )


ROWS = (
    Row("all is well", (), {}),
    _no_flock("ENOSYS", "Function not implemented"),
    _no_flock("EOPNOTSUPP", "Operation not supported"),
    _no_flock("ENOLCK", "No locks available"),
    Row(
        "flock answers EBADF",
        (),  # the lab's filesystem does not know this one
        {"flock": "EBADF"},
        "lease",
        False,
        r"flock is refused \(Bad file descriptor\)",
        ("unsafe", "flock is refused"),
    ),
    _no_flock("EINVAL", "Invalid argument"),
    Row(
        "flock grants everybody",
        ("flock=lie",),
        {"flock": "lie"},
        "lease",
        False,
        "flock grants what somebody holds",
        ("unsafe", "flock grants"),
    ),
    Row(
        "flock stays within the node, as the mount table says",
        (),  # what the lab mounts is none of these kinds
        {"mount": ["nfs", "local_lock=flock"]},
        "lease",
        False,
        r"flock stays within the node \(nfs, local_lock=flock\)",
        ("unsafe", "flock stays within this node"),
    ),
    Row(
        "shared locks alone are refused",
        ("flock_sh=ENOLCK",),
        {"flock_sh": "ENOLCK"},
        "flock",
        False,
        r"shared locks are refused \(No locks available\)",
        ("unsafe", "shared locks are refused"),
    ),
    Row(
        "shared locks are made exclusive",
        ("flock_sh=ex",),
        {"flock_sh": "ex"},
        "flock",
        False,
        "shared locks exclude each other",
        ("unsafe", "shared locks exclude each other"),
    ),
    *(
        Row(
            f"hard links are refused with {name}",
            (f"err=link:{name}",),
            {"link": name},
            shortfall=("slow", "copied"),
        )
        for name in ("EPERM", "EXDEV", "EMLINK")
    ),
    *(
        Row(
            f"renames fail with {name} now and then",
            (f"fail=rename:{name}:6:3",),
            {"rename": [name, 6, 3]},
            shortfall=("slow", "some renames fail"),
        )
        for name in ("EACCES", "EBUSY")
    ),
    Row(
        "directories cannot be renamed",
        ("rename_dir=EXDEV",),
        {"rename_dir": "EXDEV"},
        shortfall=("slow", "directories cannot be renamed"),
    ),
    Row("removed open files come back", ("--silly",), None, shortfall=("limited", "comes back")),
    Row("attributes are cached for seconds", ("--cache", "5"), None),
    Row("every call takes 5 ms", ("delay=all:5",), None, shortfall=("slow", "calls are slow")),
    Row("times are whole seconds", ("mtime_gran=1",), None, shortfall=("slow", "times of change")),
)
