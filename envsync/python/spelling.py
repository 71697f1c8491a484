"""How uv writes which Python is wanted, put as `envsync.python.interpreter.find` takes it.

The forms are those of `uv help python`: `3.12`, `cp312`, `CPython@3.12`, `>=3.11`, `cpython-3.12-linux-x86_64-gnu`,
`any`. The system, the machine and the C library at the end have to be this host's: no other Pythons are looked for.
"""

from __future__ import annotations

import re
import shlex

from envsync.errors import InterpreterError
from envsync.errors.hints import ANOTHER_PYTHON
from envsync.system import core, native

_IMPLEMENTATIONS = {"cp": "cpython", "pp": "pypy", "gp": "graalpy", "py": "", "python": "", "any": ""}
_MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
_FORM = r"""
(?P<implementation>cpython|cp|pypy|pp|graalpy|gp|python|py|any|(?=[v\d<>=~!]))
(?:[-@]|\s*)
(?:v?(?P<version>\d+(?:\.\d+){0,2})(?P<builds>t?d?|(?:\+(?:gil|freethreaded|debug))*)
  |(?P<range>[<>=~!][^-]*)
  |any)?
(?P<platform>(?:-[a-z][a-z0-9_]*){0,3})
"""


def translate(asked: str) -> str | None:
    """Put what uv takes as `envsync.python.interpreter.find` takes it. None if any Python will do.

    :raises ValueError: it is none of uv's forms, or names another platform than this one
    """
    if asked.lower() in ("any", "default"):
        return None
    if core.has_directory(asked):
        return asked
    match = re.fullmatch(_FORM, asked.lower(), re.VERBOSE)
    if match is None or not all(map(_is_here, match["platform"].split("-")[1:])):
        raise ValueError(asked)
    implementation = _IMPLEMENTATIONS.get(match["implementation"], match["implementation"])
    wanted = _version(match["version"]) + _builds(match["builds"]) if match["version"] else match["range"] or ""
    return implementation + "".join(wanted.split()) or None


def translate_pin(text: bytes, path: str) -> str | None:
    """Return what the first line of a `.python-version` asks for that is no comment. None if any Python will do.

    :param path: of the file, for the error
    :raises InterpreterError: no Python is looked for by what it says
    """
    lines = map(str.strip, text.decode("utf-8-sig", "replace").splitlines())
    asked = next((line for line in lines if line and not line.startswith("#")), "any")
    try:
        return translate(asked)
    except ValueError:
        raise InterpreterError(
            f"`{asked}` in `{path}` names no Python that can be looked for here",
            hint=f"write a version into it, as in `echo 3.12 > {shlex.quote(path)}`, or {ANOTHER_PYTHON}",
        ) from None


def _version(version: str) -> str:
    """Write a version with dots, which the names of tags have not: 312 is 3.12."""
    parts = version.split(".")
    if len(parts) == 1 and len(version) > 1:
        parts = [version[0], version[1:]]
    return ".".join(str(int(part)) for part in parts)


def _builds(builds: str) -> str:
    return builds.replace("+gil", "").replace("+freethreaded", "t").replace("+debug", "d")


def _is_here(word: str) -> bool:
    """Tell whether a part of the name of a platform fits this host. `none` is the C library where there is but one."""
    system = native.NAME
    family = core.libc_family()
    libc = {"glibc": "gnu", "other": "musl"}.get(family, "none")
    machine = core.machine().lower()
    word = re.sub(r"^(x86_64)_v\d$", r"\1", word)
    return word in ("any", system, libc, machine, _MACHINES.get(machine))
