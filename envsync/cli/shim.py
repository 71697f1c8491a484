"""`shim`: write a file that behaves as the Python of an environment, or a kernel of Jupyter that does."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from shlex import quote

from envsync.errors import FilesystemError, UsageError
from envsync.errors.hints import HELP
from envsync.launch import finding, options, request
from envsync.launch.messages import say
from envsync.library import words
from envsync.system import atomic, native, paths

MARK = "# Made by envsync shim: "
"""How the second line of our files begins: what has none is somebody else's."""
PYTHON = "python"
_KERNEL = re.compile(r"[A-Za-z0-9._-]+")
"""What Jupyter takes for the name of a kernel (jupyter-client, "Kernel specs")."""


def shim(settings: options.Settings, path: str, command: Sequence[str]) -> int:
    """Write it; what was written before for the same path is replaced. Nothing is synced."""
    kernel, named = (str(settings.pop(key, "")) for key in ("jupyter", "display_name"))
    if bool(kernel) == bool(path):
        raise UsageError(
            "say either where the file is to be or what the kernel of Jupyter is called",
            hint=HELP,
        )
    target = paths.abspath(path)
    finding.go_to(settings, os.environ)
    said = _said(settings)
    if kernel:
        return _make_kernel(said, kernel, named or kernel, quiet=bool(settings.get("quiet")))
    _refuse_to_replace_others(target)
    atomic.write(target, _script([*said, *(command or [PYTHON])]), mode=0o777)
    if not settings.get("quiet"):
        runs = f"`{' '.join(command)}`" if command else "the environment's Python"
        say(f"`{target}` makes the environment current, and becomes {runs}")
    return 0


def _said(settings: options.Settings) -> list[str]:
    """Return the words that run something in the environment, once it is clear which lock file is meant."""
    if settings.pop("active", False) and os.environ.get("VIRTUAL_ENV"):
        settings["env"] = os.environ["VIRTUAL_ENV"]
    asked = request.resolve(settings, os.environ)
    quiet = ["--quiet"] if settings.get("quiet") else []
    *said, end = words.of({**settings, "lock": paths.abspath(asked.lock)})
    return [*said, *quiet, end]


def _script(said: Sequence[str]) -> bytes:
    line = " ".join(map(quote, said))
    text = f'#!/bin/sh\n{MARK}to change it, make it anew.\nexec {line} "$@"\n'
    return text.encode(sys.getfilesystemencoding(), "surrogateescape")


def _refuse_to_replace_others(path: str) -> None:
    """:raises UsageError: something is there that is not ours"""
    try:
        with open(path, "rb") as file:
            found = file.read(4096)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FilesystemError("replace", path, error) from error
    if f"\n{MARK}".encode() not in found:
        raise UsageError(
            f"`{path}` is there already, and envsync has not written it",
            hint=f"name another file, as in: `envsync shim {quote(path)}-2`",
        )


def _make_kernel(said: Sequence[str], name: str, shown: str, *, quiet: bool) -> int:
    """Write the specification of a kernel where Jupyter looks for those of a user."""
    if not _KERNEL.fullmatch(name):
        raise UsageError(
            f"`{name}` cannot be the name of a kernel: it has to be of letters, digits, `.`, `_` and `-`",
            hint="`envsync shim --jupyter my-project` names one; `--display-name` may be any text",
        )
    directory = paths.join(_jupyter(), "kernels", name.lower())
    path = paths.join(directory, "kernel.json")
    specification = {
        "argv": [*said, PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": shown,
        "language": "python",
        "metadata": {"debugger": True, "envsync": {"made_by": "envsync shim"}},
    }
    _refuse_to_replace_another_kernel(path)
    atomic.make_directory(directory)
    atomic.write(path, json.dumps(specification, indent=1).encode() + b"\n")
    if not quiet:
        say(f"kernel `{name.lower()}` of Jupyter runs in the environment, which needs the package ipykernel: `{path}`")
    return 0


def _refuse_to_replace_another_kernel(path: str) -> None:
    """:raises UsageError: there is a kernel of this name that is not ours"""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
        if found["metadata"]["envsync"]["made_by"]:
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise FilesystemError("replace", path, error) from error
    except atomic.SENSELESS:
        pass
    raise UsageError(
        f"there is a kernel `{path}` that envsync has not made",
        hint="name another one, or see what there is: `jupyter kernelspec list`",
    )


def _jupyter() -> str:
    """Return the directory of this user's data of Jupyter (jupyter-core, "Common directories and file locations")."""
    if os.environ.get("JUPYTER_DATA_DIR"):
        return paths.abspath(os.environ["JUPYTER_DATA_DIR"])
    found = native.jupyter_directory(os.environ)
    if not found:
        raise UsageError(
            "there is no place for a kernel: HOME is not set, or no absolute path",
            hint="name one: `export JUPYTER_DATA_DIR=/path/to/jupyter`",
        )
    return found
