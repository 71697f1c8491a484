"""Say what the Python is that runs this: a child of `envsync.python.interpreter`.

Run as a script by the target's own interpreter, isolated. Nothing of envsync and of its libraries is imported, for a
library that moves on would take the targets with it that it no longer runs on: the standard library of the target has
to do, from Python 3.9 on. Older ones, back to 3.5, say at least which version they are.

Prints one line of JSON, the facts. What they mean (tags, markers) is worked out by `envsync.python.compatibility`.
"""

import importlib
import importlib.util
import json
import os
import platform
import struct
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES

CONFIGURATION = ("EXT_SUFFIX", "Py_DEBUG", "Py_GIL_DISABLED", "py_version_nodot")


def main() -> None:
    """Print the facts. Whatever `site` printed before is on lines of its own."""
    short = {"version": ".".join(map(str, sys.version_info[:3]))}
    facts = short if sys.version_info < (3, 9) else {**short, **_facts()}
    print("\n" + json.dumps(facts))


def _facts() -> "dict[str, object]":
    version, platform_name = _glibc_version(), sysconfig.get_platform()
    return {
        "executable": sys.executable,
        "base_executable": getattr(sys, "_base_executable", None) or sys.executable,
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "implementation": sys.implementation.name,
        "implementation_version": list(sys.implementation.version),
        "python_implementation": platform.python_implementation(),
        "full_version": platform.python_version(),
        "cache_tag": sys.implementation.cache_tag or "",
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "layout": _layout(),
        # the machine
        "os_name": os.name,
        "sys_platform": sys.platform,
        "system": platform.system(),
        "machine": platform.machine(),
        "platform": platform_name,
        "bits": struct.calcsize("P") * 8,
        "macos": [platform.mac_ver()[0], platform.mac_ver()[2]] if sys.platform == "darwin" else [],
        "glibc": version,
        "manylinux": _manylinux(version, platform_name),
        # the kind of build
        "abiflags": getattr(sys, "abiflags", ""),
        "counts_references": hasattr(sys, "gettotalrefcount"),
        "extension_suffixes": EXTENSION_SUFFIXES,
        "configuration": {name: sysconfig.get_config_var(name) for name in CONFIGURATION},
    }


def _layout() -> "dict[str, str]":
    """Say where a virtual environment of this Python has what wheels bring, relative to it."""
    names = sysconfig.get_scheme_names()
    scheme = "venv" if "venv" in names else os.name if os.name == "nt" else "posix_prefix"
    root = os.path.join(os.sep, "-")
    bases = dict.fromkeys(("base", "platbase", "installed_base", "installed_platbase"), root)
    paths = sysconfig.get_paths(scheme, vars=bases)
    found = {
        name: os.path.relpath(paths[name], root).replace(os.sep, "/") for name in ("purelib", "platlib", "scripts")
    }
    python = "python" + ".".join(map(str, sys.version_info[:2]))
    include = "Include" if os.name == "nt" else "include"  # as venv makes it: with another case it would be another one
    return {**found, "data": ".", "headers": include + "/site/" + python}


def _glibc_version() -> "str | None":
    """Say which glibc this very process runs on, as in 2.36; None if it is another C library."""
    if sys.platform == "win32":
        return None
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1]
    except (AttributeError, OSError, ValueError, IndexError):
        pass  # not every implementation has confstr, nor every C library that name
    if not str(sys.platform).startswith("linux"):  # str: or mypy takes what follows for dead on other systems
        return None
    try:
        import ctypes

        function = ctypes.CDLL(None).gnu_get_libc_version
        function.restype = ctypes.c_char_p
        return str(function().decode("ascii"))
    except (ImportError, OSError, AttributeError):
        return None  # without ctypes, linked statically, or not glibc


def _manylinux(glibc: "str | None", platform_name: str) -> "dict[str, list[list[object]]]":
    """Ask the module `_manylinux`, where a distributor has put one, which manylinux wheels are not for this Python.

    PEP 600 defines it. An answer is `[major, minor, machine, allowed]`; what is not answered is allowed.
    """
    numbers = (glibc or "").split(".")
    if len(numbers) < 2 or not numbers[0].isdigit():
        return {}
    try:
        hook = importlib.import_module("_manylinux")
    except ImportError:
        return {}
    minors = range(1 + max(50, int("".join(c for c in numbers[1] if c.isdigit()) or 0)))
    machines = {platform_name.partition("-")[2].replace("-", "_").replace(".", "_"), "i686", "armv8l", "armv7l"}
    if hasattr(hook, "manylinux_compatible"):
        versions = [(major, minor) for major in range(2, int(numbers[0]) + 1) for minor in minors]
        answers = [[*v, m, hook.manylinux_compatible(*v, m)] for v in versions for m in sorted(machines)]
        return {"answers": [[*rest, bool(allowed)] for *rest, allowed in answers if allowed is not None]}
    old = {"manylinux1_compatible": (2, 5), "manylinux2010_compatible": (2, 12), "manylinux2014_compatible": (2, 17)}
    given = {version: getattr(hook, name) for name, version in old.items() if hasattr(hook, name)}
    return {"answers": [[*v, m, bool(allowed)] for v, allowed in given.items() for m in sorted(machines)]}


if __name__ == "__main__":
    main()
