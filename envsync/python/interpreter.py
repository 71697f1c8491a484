"""Find Pythons and gather the facts about them that selecting wheels and laying out files needs.

An interpreter is asked by running it, isolated (`-I`), with a script that needs its standard library alone
(`envsync.python.interpreter_child`); its markers and tags are worked out here (`envsync.python.compatibility`). The
answer is kept in the cache, keyed by everything that could change it: the path, size and mtime of the file behind it,
pyvenv.cfg beside it, machine and C library, and the `packaging` that makes the tags. What the kernel of a host says of
itself is not kept: hosts share the cache.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from envsync.errors import InterpreterError, UnsupportedPythonError
from envsync.errors.hints import ANOTHER_PYTHON
from envsync.launch.request import release_of
from envsync.launch.stamp import checksum
from envsync.python.facts import Interpreter
from envsync.system import core, groups, native, paths, records

FORMAT = 5
OLDEST = (3, 9)

_CHILD = paths.join(os.path.dirname(paths.abspath(__file__)), "interpreter_child.py")
_MISLEADING = ("_PYTHON_HOST_PLATFORM", "_PYTHON_PROJECT_BASE", "_PYTHON_SYSCONFIGDATA_NAME", "__PYVENV_LAUNCHER__")
"""Variables by which a Python that is being built, or cross-compiles, takes itself for another one, `-I` or not."""


def find(spec: str) -> str:
    """Find an interpreter by a specification such as `3.12`, `>=3.11`, `cpython3.12` or a path.

    :returns: the path of its executable
    :raises InterpreterError: there is none
    """
    if core.has_directory(spec):
        if not os.access(spec, os.X_OK):
            raise InterpreterError(f"`{spec}` is not an executable Python", hint=ANOTHER_PYTHON)
        return paths.realpath(spec)
    from python_discovery import get_interpreter

    try:
        found = get_interpreter(spec)
    except (ValueError, RuntimeError, OSError) as error:
        raise InterpreterError(f"cannot look for Python `{spec}`: {error}") from error
    if found is None or not found.executable:
        raise InterpreterError(
            f"no Python found for `{spec}`",
            hint=f"install one, or {ANOTHER_PYTHON}",
        )
    # The versioned file behind `python3`: one day, that name leads to another version.
    return paths.realpath(str(found.system_executable or found.executable))


def own_base() -> str:
    """Return the interpreter that envsync itself was started with, outside any virtual environment.

    By the name that has the version, where there is one: after an upgrade, `python3` runs another version, which finds
    nothing of what was installed for this one, while a name that is gone is noticed.
    """
    base = str(getattr(sys, "_base_executable", None) or sys.executable)
    named = paths.join(os.path.dirname(base), "python" + ".".join(map(str, sys.version_info[:2])))
    try:
        return named if os.path.samefile(base, named) else base
    except OSError:
        return base


def inspect(executable: str, cache: str) -> Interpreter:
    """Gather the facts about an interpreter.

    :param executable: its path; it is run unless the cache knows the answer
    :param cache: the cache directory; one that cannot be written to costs time only
    :raises InterpreterError: it cannot be run
    :raises UnsupportedPythonError: it is older than Python 3.9
    """
    status = _status(executable)
    key = _key(executable, status)
    path = paths.join(cache, "v1", "interpreters", key + ".json")
    facts: dict[str, Any] = records.load(path)
    if not facts or not _is_of(facts, executable):
        facts = _worked_out(_ask(executable))
        if _is_of(facts, executable):
            groups.write(cache, path, facts)
        else:  # a wrapper, as pyenv has: it may start another one next time
            status = _status(facts["executable"])
            key = _key(facts["executable"], status)
    if _version(facts) < OLDEST:
        raise UnsupportedPythonError(
            f"`{executable}` is Python {facts['version']}; environments need Python 3.9 or newer",
            hint=ANOTHER_PYTHON,
        )
    return Interpreter(
        executable=facts["executable"],
        prefix=facts["prefix"],
        base_prefix=facts["base_prefix"],
        implementation=facts["implementation"],
        version=facts["version"],
        machine=facts["machine"],
        libc=core.libc_family(),
        cache_tag=facts["cache_tag"],
        markers={**facts["markers"], **core.kernel()},
        tags=tuple(facts["tags"]),
        layout=facts["layout"],
        fingerprint=facts["fingerprint"],
        key=key,
        release=release_of(".".join(facts["version"].split(".")[:2]), facts["abiflags"], narrow=facts["bits"] == 32),
        base_executable=facts["base_executable"],
        identity=(status.st_size, status.st_mtime_ns),
        magic=facts["magic"],
    )


def beneath(python: Interpreter, cache: str) -> Interpreter:
    """Return the interpreter that a virtual environment was made of, or the given one if it is in none.

    The given one, too, if that cannot be run any more, or is another version by now.

    :param cache: the cache directory
    """
    if python.prefix == python.base_prefix or not python.base_executable:
        return python
    try:
        found = inspect(python.base_executable, cache)
    except (InterpreterError, UnsupportedPythonError):
        return python
    return found if found.version == python.version else python


def _is_of(facts: dict[str, Any], executable: str) -> bool:
    """Tell whether it is the very interpreter that has answered, and not one that it has started."""
    try:
        return not facts.get("executable") or os.path.samefile(facts["executable"], executable)
    except OSError:
        return False


def _version(facts: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in facts["version"].split("."))


def _worked_out(facts: dict[str, Any]) -> dict[str, Any]:
    """Add what the facts mean."""
    if _version(facts) < OLDEST:
        return facts
    from envsync.python import compatibility

    markers, tags = compatibility.markers(facts), compatibility.tags(facts)
    fingerprint = checksum(json.dumps([markers, tags], sort_keys=True).encode())
    return {**facts, "markers": markers, "tags": tags, "fingerprint": fingerprint}


def _status(executable: str) -> os.stat_result:
    try:
        return os.stat(executable)
    except OSError as error:
        raise InterpreterError(f"cannot run Python `{executable}`: {error.strerror}") from error


def _key(executable: str, status: os.stat_result) -> str:
    import packaging

    parts = [
        FORMAT,
        paths.abspath(executable),
        paths.realpath(executable),
        status.st_size,
        status.st_mtime_ns,
    ]
    for config in (os.path.dirname(executable), os.path.dirname(os.path.dirname(executable))):
        try:
            status = os.stat(paths.join(config, "pyvenv.cfg"))
        except OSError:
            parts.append("no pyvenv.cfg")
        else:
            parts += [status.st_size, status.st_mtime_ns, status.st_ino]
    parts += [native.NAME, core.machine(), native.libc_version(), packaging.__version__]
    return checksum("\n".join(str(part) for part in parts).encode("utf-8", "surrogateescape"))


def _ask(executable: str) -> dict[str, Any]:
    import subprocess

    environ = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    environ["SYSTEM_VERSION_COMPAT"] = "0"  # or macOS calls itself 10.16 to what was built for an old one
    try:
        answer = subprocess.run(
            [executable, "-I", "-B", _CHILD],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            env=environ,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise InterpreterError(f"Python `{executable}` does not run: {said or error}") from error
    except OSError as error:
        raise InterpreterError(f"cannot run Python `{executable}`: {error.strerror}") from error
    for line in reversed(answer.stdout.splitlines()):  # whatever a wrapper or `atexit` prints comes after it
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict) and "version" in facts:
            return facts
    raise InterpreterError(f"`{executable}` does not answer as a Python does")
