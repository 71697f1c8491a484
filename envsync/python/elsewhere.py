"""A Python that is not here: its markers and tags, worked out from its version and the name of its platform.

Platforms are named as wheels name them, which is how `pip download --platform` takes them:

    manylinux_2_28_x86_64   Linux with glibc 2.28 or newer (PEP 600); manylinux2014_x86_64 and older names likewise
    musllinux_1_2_aarch64   Linux with musl 1.2 or newer (PEP 656)
    macosx_14_0_arm64       macOS 14.0 or newer
    win_amd64, win_arm64, win32
    linux_x86_64            manylinux_2_28_x86_64, which is what uv takes `linux` for

What is worked out here is for choosing wheels. It cannot be run: no environment is made with it, and nothing is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from packaging.tags import mac_platforms

from envsync.errors import UsageError
from envsync.launch.request import release_of
from envsync.launch.stamp import checksum
from envsync.python import compatibility
from envsync.python.facts import Interpreter

DEFAULT_GLIBC = (2, 28)
"""Of `linux_x86_64`: that of RHEL 8 and all that is newer, as uv has it."""
_FAMILIES = ("manylinux", "musllinux", "macosx")
_VERSIONED = re.compile(r"(manylinux|musllinux|macosx)_(\d{1,3})_(\d{1,3})_([a-z0-9_]+)")
_LEGACY = {name: glibc for glibc, name in compatibility.LEGACY.items()}
_OLD = re.compile(rf"({'|'.join(_LEGACY)})_([a-z0-9_]+)")
_WINDOWS = {"win_amd64": "AMD64", "win_arm64": "ARM64", "win32": "x86"}
_VERSION = re.compile(r"(?:cpython|cp)?(\d)\.(\d{1,2})(?:\.(\d{1,3}))?(t?)")


class Platform(NamedTuple):
    """What a Python runs on."""

    name: str
    """As it was asked for."""
    system: str
    """As the marker `platform_system`."""
    machine: str
    """As the marker `platform_machine`."""
    libc: str
    tags: tuple[str, ...]
    """The platform tags of the wheels that it takes, best first."""


class Version(NamedTuple):
    """Which CPython."""

    short: str
    """X.Y."""
    full: str
    """X.Y.Z."""
    threaded: bool
    """Without the GIL."""


def platform_of(name: str) -> Platform:
    """Understand the name of a platform.

    :raises UsageError: it is none
    """
    tag = name.strip().lower().replace("-", "_").replace(".", "_")
    if tag in _WINDOWS:
        return Platform(name, "Windows", _WINDOWS[tag], "", (tag,))
    if tag.startswith("linux_"):
        return _manylinux(name, DEFAULT_GLIBC, tag.removeprefix("linux_"))
    if (old := _OLD.fullmatch(tag)) is not None:
        return _manylinux(name, _LEGACY[old[1]], old[2])
    if (match := _VERSIONED.fullmatch(tag)) is None:
        hint = "name it as wheels do: `envsync bundle --platform manylinux_2_28_x86_64`"
        raise UsageError(f"`{name}` is not the name of a platform", hint=hint)
    version = int(match[2]), int(match[3])
    kinds: dict[str, Callable[[str, tuple[int, int], str], Platform]] = dict(
        zip(_FAMILIES, (_manylinux, _musllinux, _macos), strict=True)
    )
    return kinds[match[1]](name, version, match[4])


def _manylinux(name: str, glibc: tuple[int, int], machine: str) -> Platform:
    tags = (*compatibility.manylinux(glibc, machine), f"linux_{machine}")
    return Platform(name, "Linux", machine, "glibc", tags)


def _musllinux(name: str, musl: tuple[int, int], machine: str) -> Platform:
    tags = [f"musllinux_{musl[0]}_{minor}_{machine}" for minor in range(musl[1], -1, -1)]
    return Platform(name, "Linux", machine, "musl", (*tags, f"linux_{machine}"))


def _macos(name: str, version: tuple[int, int], machine: str) -> Platform:
    return Platform(name, "Darwin", machine, "darwin", tuple(mac_platforms(version, machine)))


def version_of(text: str) -> Version | None:
    """Understand which CPython is meant, as in `3.12`, `3.12.4` or `3.13t`; None if that takes a look at one.

    Of X.Y alone, the first release is meant, as pip has it: markers that tell releases apart say so in what is made.
    """
    match = _VERSION.fullmatch(text.strip().lower())
    if match is None:
        return None
    short = f"{match[1]}.{int(match[2])}"
    return Version(short, f"{short}.{int(match[3] or 0)}", bool(match[4]))


def like(known: Interpreter, version: Version) -> Interpreter:
    """Work out another CPython on the platform of one that is known."""
    tags = dict.fromkeys(tag.rpartition("-")[2] for tag in known.tags)
    tags.pop("any", None)
    system = known.markers["platform_system"]
    return at(Platform("", system, known.markers["platform_machine"], known.libc, tuple(tags)), version)


def at(platform: Platform, version: Version) -> Interpreter:
    """Work out a CPython on a platform."""
    facts = _facts(platform, version)
    markers, tags = compatibility.markers(facts), compatibility.tags(facts, platform.tags)
    return Interpreter(
        executable="",
        prefix="",
        base_prefix="",
        implementation="cpython",
        version=version.full,
        machine=platform.machine,
        libc=platform.libc,
        cache_tag="",
        # Those of its kernel nobody knows here.
        markers={**markers, "platform_release": "", "platform_version": ""},
        tags=tuple(tags),
        layout={},
        fingerprint=checksum(json.dumps([markers, tags], sort_keys=True).encode()),
        key="",
        release=release_of(version.short, "t" if version.threaded else "", narrow=platform.tags[-1] == "win32"),
    )


def _facts(platform: Platform, version: Version) -> dict[str, Any]:
    """Say of it what `envsync.python.interpreter_child` says of one that is here."""
    systems = {"Linux": "linux", "Darwin": "darwin", "Windows": "win32"}
    numbers: Sequence[Any] = [*map(int, version.full.split(".")), "final", 0]
    return {
        "implementation": "cpython",
        "implementation_version": numbers,
        "python_implementation": "CPython",
        "version": version.full,
        "full_version": version.full,
        "os_name": "nt" if platform.system == "Windows" else "posix",
        "sys_platform": systems.get(platform.system, platform.system.lower()),
        "system": platform.system,
        "machine": platform.machine,
        "counts_references": False,
        "extension_suffixes": [],
        "configuration": {
            "py_version_nodot": version.short.replace(".", ""),
            "Py_DEBUG": False,
            "Py_GIL_DISABLED": version.threaded,
        },
    }
