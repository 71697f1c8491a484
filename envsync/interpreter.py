"""Find Pythons and gather the facts about them that selecting wheels and laying out files needs.

An interpreter is asked by running it, isolated (`-I`), with a script that borrows our `packaging`: its markers and
tags have to be its own, not ours. The answer is kept in the cache, keyed by everything that could change it: the
path, size and mtime of the file behind it, pyvenv.cfg beside it, machine and C library.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from envsync import replace
from envsync.cache import sharing
from envsync.errors import InterpreterError, UnsupportedPythonError
from envsync.request import libc_family
from envsync.stamp import checksum
from envsync.target import Interpreter

FORMAT = 3
OLDEST = (3, 9)

_QUESTION = """\
import importlib.util, json, os, sys, sysconfig
sys.path.append(sys.argv[1])
if sys.version_info < (3, 9):
    print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3]}))
    sys.exit()
from packaging.markers import default_environment
from packaging.tags import sys_tags
scheme = "venv" if "venv" in sysconfig.get_scheme_names() else os.name if os.name == "nt" else "posix_prefix"
root = os.path.join(os.sep, "-")
bases = dict.fromkeys(("base", "platbase", "installed_base", "installed_platbase"), root)
paths = sysconfig.get_paths(scheme, vars=bases)
layout = {name: os.path.relpath(paths[name], root).replace(os.sep, "/") for name in ("purelib", "platlib", "scripts")}
layout["data"] = "."
layout["headers"] = "include/site/python%d.%d" % sys.version_info[:2]
print(json.dumps({
    "executable": sys.executable,
    "base_executable": getattr(sys, "_base_executable", sys.executable),
    "prefix": sys.prefix,
    "base_prefix": sys.base_prefix,
    "implementation": sys.implementation.name,
    "version": "%d.%d.%d" % sys.version_info[:3],
    "machine": os.uname().machine if hasattr(os, "uname") else os.environ.get("PROCESSOR_ARCHITECTURE", ""),
    "cache_tag": sys.implementation.cache_tag or "",
    "magic": importlib.util.MAGIC_NUMBER.hex(),
    "markers": default_environment(),
    "tags": [str(tag) for tag in sys_tags()],
    "layout": layout,
}))
"""


def find(spec: str) -> str:
    """Find an interpreter by a specification such as `3.12`, `>=3.11`, `cpython3.12` or a path.

    :returns: the path of its executable
    :raises InterpreterError: there is none
    """
    if os.sep in spec:
        if not os.access(spec, os.X_OK):
            raise InterpreterError(f"`{spec}` is not an executable Python", hint="name another with --python")
        return os.path.realpath(spec)
    from python_discovery import get_interpreter

    try:
        found = get_interpreter(spec)
    except (ValueError, RuntimeError, OSError) as error:
        raise InterpreterError(f"cannot look for Python `{spec}`: {error}") from error
    if found is None or not found.executable:
        raise InterpreterError(
            f"no Python found for `{spec}`",
            hint="install one, or name another with --python (a version or a path)",
        )
    # The versioned file behind `python3`: one day, that name leads to another version.
    return os.path.realpath(str(found.system_executable or found.executable))


def own_base() -> str:
    """Return the interpreter that envsync itself was started with, outside any virtual environment."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def inspect(executable: str, cache: str) -> Interpreter:
    """Gather the facts about an interpreter.

    :param executable: its path; it is run unless the cache knows the answer
    :param cache: the cache directory; one that cannot be written to costs time only
    :raises InterpreterError: it cannot be run
    :raises UnsupportedPythonError: it is older than Python 3.9
    """
    key = _key(executable)
    path = os.path.join(cache, "v1", "interpreters", key + ".json")
    facts = _cached(path)
    if facts is None:
        facts = _ask(executable)
        facts["fingerprint"] = checksum(json.dumps([facts.get("markers"), facts.get("tags")], sort_keys=True).encode())
        sharing.write(cache, path, json.dumps(facts).encode())
    version = tuple(int(part) for part in facts["version"].split("."))
    if version < OLDEST:
        raise UnsupportedPythonError(
            f"`{executable}` is Python {facts['version']}; environments need Python 3.9 or newer",
            hint="name another with --python",
        )
    return Interpreter(
        executable=facts["executable"],
        prefix=facts["prefix"],
        base_prefix=facts["base_prefix"],
        implementation=facts["implementation"],
        version=facts["version"],
        machine=facts["machine"],
        libc=libc_family(),
        cache_tag=facts["cache_tag"],
        markers=facts["markers"],
        tags=tuple(facts["tags"]),
        layout=facts["layout"],
        fingerprint=facts["fingerprint"],
        key=key,
        magic=facts["magic"],
    )


def _key(executable: str) -> str:
    try:
        status = os.stat(executable)
    except OSError as error:
        raise InterpreterError(f"cannot run Python `{executable}`: {error.strerror}") from error
    parts = [
        FORMAT,
        os.path.abspath(executable),
        os.path.realpath(executable),
        status.st_size,
        status.st_mtime_ns,
    ]
    for config in (os.path.dirname(executable), os.path.dirname(os.path.dirname(executable))):
        try:
            status = os.stat(os.path.join(config, "pyvenv.cfg"))
        except OSError:
            parts.append("no pyvenv.cfg")
        else:
            parts += [status.st_size, status.st_mtime_ns, status.st_ino]
    system = os.uname()
    libc = os.confstr("CS_GNU_LIBC_VERSION") if libc_family() == "glibc" else "other"
    parts += [system.sysname, system.machine, libc]
    return checksum("\n".join(str(part) for part in parts).encode("utf-8", "surrogateescape"))


def _cached(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            value = json.loads(replace.unseal(file.read()))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _ask(executable: str) -> dict[str, Any]:
    import subprocess

    import packaging

    borrowed = os.path.dirname(os.path.dirname(os.path.abspath(packaging.__file__)))
    try:
        answer = subprocess.run(
            [executable, "-I", "-c", _QUESTION, borrowed],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        facts = json.loads(answer.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise InterpreterError(f"Python `{executable}` does not run: {said or error}") from error
    except OSError as error:
        raise InterpreterError(f"cannot run Python `{executable}`: {error.strerror}") from error
    except ValueError as error:
        raise InterpreterError(f"`{executable}` does not answer as a Python does") from error
    assert isinstance(facts, dict)
    return facts
