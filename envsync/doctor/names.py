"""Try what can be done with names: links, clones, renames, letter case, removal of what is open."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from envsync.doctor.facts import Names
from envsync.staging import link_modes

RENAMES = 20
"""So many, because some filesystems refuse one now and then."""


def attempt(function: Callable[..., object], *arguments: object) -> str:
    """Do something; return the empty string, or the name of the error."""
    try:
        function(*arguments)
    except OSError as error:
        return error_name(error)
    return ""


def error_name(error: OSError) -> str:
    """Return the name of an error, as in "EXDEV"."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def write(path: str, content: str = "x") -> None:
    """Write a small file."""
    with open(path, "w", encoding="ascii") as file:
        file.write(content)


def clone(source: str, destination: str) -> None:
    """Make a file that shares its blocks with another one.

    :raises OSError: this cannot be done here
    """
    with open(source, "rb") as reading, open(destination, "wb") as writing:
        link_modes.clone(reading.fileno(), writing.fileno(), 0, destination)


def examine(directory: str) -> Names:
    """Try it all, in a directory of its own."""
    write(f"{directory}/file")
    write(f"{directory}/CaSe")
    os.mkdir(f"{directory}/tree")
    write(f"{directory}/tree/file")
    errors = _rename_often(directory)
    return Names(
        hard_link=attempt(os.link, f"{directory}/file", f"{directory}/link"),
        clone=attempt(clone, f"{directory}/file", f"{directory}/clone"),
        symlink=attempt(os.symlink, "file", f"{directory}/symlink"),
        rename_over=errors[0] if len(errors) == RENAMES else "",
        rename_errors=tuple(sorted(set(errors))) if len(errors) < RENAMES else (),
        rename_directory=attempt(os.rename, f"{directory}/tree", f"{directory}/moved"),
        folds_case=os.path.lexists(f"{directory}/cAsE"),
        hidden=_hidden(f"{directory}/hidden"),
    )


def _rename_often(directory: str) -> list[str]:
    errors = []
    for _ in range(RENAMES):
        write(f"{directory}/new")
        error = attempt(os.rename, f"{directory}/new", f"{directory}/old")
        if error:
            errors.append(error)
    return errors


def _hidden(directory: str) -> tuple[str, ...]:
    """Remove a file that is open, and look what is in its directory then."""
    os.mkdir(directory)
    write(f"{directory}/file")
    with open(f"{directory}/file", "rb"):
        os.unlink(f"{directory}/file")
        return tuple(os.listdir(directory))
