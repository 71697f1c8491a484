"""Work out from the facts about a Python which markers and tags it has: what `packaging` would say inside it.

The facts come from the target itself (`envsync.python.interpreter_child`); `packaging` is ours, and runs here only. It
makes the tags of an interpreter whose ABIs and platforms it is told; what it works out for the running process alone
(the ABIs of a build, the platforms of Linux: PEP 600, PEP 656) is worked out here, from the facts, by the same rules.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from packaging.tags import (
    INTERPRETER_SHORT_NAMES,
    Tag,
    compatible_tags,
    cpython_tags,
    generic_tags,
    mac_platforms,
)

from envsync.python import elf

Facts = Mapping[str, Any]

MANYLINUX_MACHINES = frozenset({"x86_64", "aarch64", "ppc64", "ppc64le", "s390x", "loongarch64", "riscv64"})
NARROW = {"x86_64": "i686", "aarch64": "armv8l"}
"""What a Python of 32 bits runs on, by the machine of 64 bits that it says it is on."""
LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}
LAST_MINOR = 50
"""Of a major version of glibc that has been followed by another, as far as anybody knows."""


def markers(facts: Facts) -> dict[str, str]:
    """Return the markers (PEP 508) but for the two that only the host decides, `platform_release` and `_version`."""
    return {
        "implementation_name": facts["implementation"],
        "implementation_version": _full_version(facts["implementation_version"]),
        "os_name": facts["os_name"],
        "platform_machine": facts["machine"],
        "platform_python_implementation": facts["python_implementation"],
        "platform_system": facts["system"],
        "python_full_version": facts["full_version"],
        "python_version": ".".join(facts["version"].split(".")[:2]),
        "sys_platform": facts["sys_platform"],
    }


def _full_version(info: Sequence[Any]) -> str:
    """Write `sys.implementation.version` as PEP 508 does, as in 3.14.0rc2."""
    level = "" if info[3] == "final" else f"{info[3][0]}{info[4]}"
    return ".".join(map(str, info[:3])) + level


def tags(facts: Facts, platforms: Sequence[str] = ()) -> list[str]:
    """Return the supported tags, best first, each as `cp311-cp311-manylinux_2_17_x86_64`.

    :param platforms: those of the platform tags, best first; default: what the facts say
    """
    return [str(tag) for tag in _tags(facts, list(platforms) or list(_platforms(facts)))]


def _tags(facts: Facts, platforms: Sequence[str]) -> Iterator[Tag]:
    version = tuple(int(part) for part in facts["version"].split(".")[:2])
    name = INTERPRETER_SHORT_NAMES.get(facts["implementation"]) or facts["implementation"]
    nodot = facts["configuration"]["py_version_nodot"] or "".join(map(str, version))
    if name == "cp":
        yield from cpython_tags(version, list(_cpython_abis(facts, version)), platforms)
    else:
        yield from generic_tags(f"{name}{nodot}", list(_generic_abis(facts, version)), platforms)
    yield from compatible_tags(version, {"cp": f"cp{nodot}", "pp": "pp3"}.get(name), platforms)


def _cpython_abis(facts: Facts, version: tuple[int, ...]) -> Iterator[str]:
    """Yield the ABIs of a build: `t` for one without the GIL, `d` for one with debugging, which loads others, too."""
    configuration = facts["configuration"]
    debug = configuration["Py_DEBUG"]
    if debug is None:  # as on Windows
        debug = facts["counts_references"] or "_d.pyd" in facts["extension_suffixes"]
    threaded = "t" if version >= (3, 13) and configuration["Py_GIL_DISABLED"] else ""
    plain = f"cp{''.join(map(str, version))}{threaded}"
    if debug:
        yield f"{plain}d"
    yield plain


def _generic_abis(facts: Facts, version: tuple[int, ...]) -> Iterator[str]:
    """Yield the ABI that the suffix of extension modules names, as in `.pypy310-pp73-x86_64-linux-gnu.so`."""
    suffix = facts["configuration"]["EXT_SUFFIX"] or ""
    parts = suffix.split(".")
    if len(parts) < 3:
        yield from _cpython_abis(facts, version)
        return
    words = parts[1].split("-")
    if words[0] == "cpython" and len(words) > 1:
        yield f"cp{_normalized(words[1])}"
    elif parts[1]:
        kept = {"pypy": 2, "graalpy": 3, "cp": 1}
        count = next((number for prefix, number in kept.items() if parts[1].startswith(prefix)), len(words))
        yield _normalized("-".join(words[:count]))


def _normalized(text: str) -> str:
    return text.replace(".", "_").replace("-", "_").replace(" ", "_")


def _platforms(facts: Facts) -> Iterator[str]:
    if facts["macos"]:
        yield from mac_platforms(*_macos(facts))
        return
    platform = _normalized(facts["platform"])
    if facts["system"] != "Linux" or not platform.startswith("linux_"):
        yield platform
        return
    machine = platform.removeprefix("linux_")
    if facts["bits"] == 32:
        machine = NARROW.get(machine, machine)
    machines = ["armv8l", "armv7l"] if machine == "armv8l" else [machine]
    yield from (f"linux_{each}" for each in machines)
    header = elf.read_header(facts["executable"])
    yield from _manylinux(facts, machines, header)
    yield from _musllinux(machines, header)


def _macos(facts: Facts) -> tuple[tuple[int, int], str]:
    """Return the version of macOS and the machine."""
    version, machine = facts["macos"]
    major, minor = (*map(int, version.split(".")[:2]), 0)[:2]
    if facts["bits"] == 32:
        machine = "ppc" if machine.startswith("ppc") else "i386"
    return (major, minor), machine


def _manylinux(facts: Facts, machines: Sequence[str], header: elf.Header | None) -> Iterator[str]:
    """Yield what PEP 600 calls wheels that run with this glibc or an older one."""
    latest = re.match(r"(\d+)\.(\d+)", facts["glibc"] or "")
    if latest is None or not _has_their_abi(machines, header):
        return
    refused = {tuple(answer[:3]) for answer in facts["manylinux"].get("answers", ()) if not answer[3]}
    for major, minor, machine in _glibcs((int(latest[1]), int(latest[2])), machines):
        if (major, minor, machine) not in refused:
            yield from _named(major, minor, machine)


def manylinux(glibc: tuple[int, int], machine: str) -> list[str]:
    """Return the platform tags, best first, of wheels that run with this glibc or an older one, wherever that is."""
    return [tag for found in _glibcs(glibc, [machine]) for tag in _named(*found)]


def _glibcs(top: tuple[int, int], machines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the versions of glibc that wheels may be for, the latest first, for one machine after the other."""
    oldest = 5 if {"x86_64", "i686"} & set(machines) else 17
    for machine in machines:
        for major in range(top[0], 1, -1):
            last = top[1] if major == top[0] else LAST_MINOR
            for minor in range(last, (oldest if major == 2 else 0) - 1, -1):
                yield major, minor, machine


def _named(major: int, minor: int, machine: str) -> Iterator[str]:
    """Yield the names that platform tags have for one version of glibc."""
    yield f"manylinux_{major}_{minor}_{machine}"
    if (major, minor) in LEGACY:
        yield f"{LEGACY[major, minor]}_{machine}"


def _has_their_abi(machines: Sequence[str], header: elf.Header | None) -> bool:
    """Tell whether manylinux defines wheels for a machine, and the program is of the kind that it defines them for."""
    if "armv7l" in machines:
        return header is not None and header.is_armhf
    if "i686" in machines:
        return header is not None and header.is_i686
    return not MANYLINUX_MACHINES.isdisjoint(machines)


def _musllinux(machines: Sequence[str], header: elf.Header | None) -> Iterator[str]:
    """Yield what PEP 656 calls wheels that run with this musl or an older one. Its loader says which it is."""
    if header is None or "musl" not in header.loader:
        return
    try:
        asked = subprocess.run([header.loader], check=False, capture_output=True, stdin=subprocess.DEVNULL)
    except OSError:
        return
    said = re.match(r"\s*musl.*\s+Version (\d+)\.(\d+)", asked.stderr.decode("utf-8", "replace"))
    if said is not None:
        for machine in machines:
            yield from (f"musllinux_{said[1]}_{minor}_{machine}" for minor in range(int(said[2]), -1, -1))
