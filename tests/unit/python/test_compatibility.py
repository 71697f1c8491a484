"""What a Python can run, worked out from facts: always what `packaging` would say inside it."""

from __future__ import annotations

import json
import os
import platform
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import packaging
import pytest
from packaging import _manylinux, _musllinux, tags

from envsync.python import compatibility, elf, interpreter
from tests import pythons

_INSIDE = """\
import json, sys
sys.path.insert(0, sys.argv[1])
try:
    import packaging.tags, packaging.markers
    p, newest = packaging, True
except Exception:
    sys.path.pop(0)
    while [sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "packaging"]:
        pass
    try:
        import pip._vendor.packaging.tags, pip._vendor.packaging.markers
    except Exception:
        sys.exit("none")
    p, newest = pip._vendor.packaging, False
tags = [str(tag) for tag in p.tags.sys_tags()]
print(json.dumps([newest, p.markers.default_environment(), tags]))
"""


@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_equals_what_packaging_says_inside_the_target(version: str) -> None:
    """Markers and tags are those that `packaging` finds in that Python, or an older one where ours does not run."""
    executable = pythons.need(version)
    ours = Path(packaging.__file__).parent.parent
    asked = subprocess.run(
        [executable, "-I", "-B", "-c", _INSIDE, str(ours)], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        pytest.skip(f"no packaging runs in Python {version} here: {asked.stderr[-200:]}")
    newest, markers, expected = json.loads(asked.stdout)
    found = interpreter.inspect(executable, os.devnull)
    assert dict(found.markers) == markers
    if newest:
        assert list(found.tags) == expected
    else:  # `linux_*` came after manylinux before 26.3, and `cpXY-none-any` did not come before 21.3
        later = f"cp{version.replace('.', '')}-none-any"
        assert set(found.tags) - {later} == set(expected) - {later}
        other = [tag for tag in expected if "-linux_" not in tag and tag != later]
        assert [tag for tag in found.tags if "-linux_" not in tag and tag != later] == other


def facts_of_this() -> dict[str, Any]:
    return dict(interpreter._ask(sys.executable))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that makes `packaging` here take this Python for one of the given facts."""

    def pretend(facts: dict[str, Any]) -> list[str]:
        configuration = facts["configuration"]
        monkeypatch.setattr(tags, "_get_config_var", lambda name, warn=False: configuration.get(name))
        monkeypatch.setattr(sysconfig, "get_platform", lambda: facts["platform"])
        monkeypatch.setattr(sys, "executable", facts["executable"])
        monkeypatch.setattr(sys.implementation, "name", facts["implementation"])
        monkeypatch.setattr(sys, "version_info", (*map(int, facts["version"].split(".")), "final", 0))
        monkeypatch.setattr(platform, "system", lambda: facts["system"])
        monkeypatch.setattr(platform, "mac_ver", lambda: (facts["macos"][0], ("", "", ""), facts["macos"][1]))
        monkeypatch.setattr(_manylinux, "_glibc_version_string", lambda: facts["glibc"])
        if facts["system"] == "Linux":
            narrow = facts["bits"] == 32
            monkeypatch.setattr(tags, "platform_tags", lambda: tags._linux_platforms(is_32bit=narrow))
        _manylinux._get_glibc_version.cache_clear()
        _manylinux._get_manylinux_module.cache_clear()
        _musllinux._get_musl_version.cache_clear()
        return [str(tag) for tag in tags.sys_tags()]

    yield pretend
    monkeypatch.undo()
    _manylinux._get_glibc_version.cache_clear()
    _manylinux._get_manylinux_module.cache_clear()


def program(path: Path, *, bits: int, machine: int, flags: int = 0, loader: str = "/lib/ld.so") -> str:
    """Write an ELF file that is nothing but headers."""
    head, entry = ("<HHIIIIIHHH", "<IIIIIIII") if bits == 32 else ("<HHIQQQIHHH", "<IIQQQQQQ")
    start = 16 + struct.calcsize(head)
    name = loader.encode() + b"\0"
    place = start + struct.calcsize(entry)
    fields = (3, place, 0, 0, len(name), 0, 0, 0) if bits == 32 else (3, 0, place, 0, 0, len(name), 0, 0)
    header = struct.pack(head, 3, machine, 1, 0, start, 0, flags, 0, struct.calcsize(entry), 1)
    path.write_bytes(b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9) + header + struct.pack(entry, *fields) + name)
    return str(path)


def changed(facts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    configuration = {**facts["configuration"], **changes.pop("configuration", {})}
    return {**facts, **changes, "configuration": configuration}


BUILDS = {
    "free-threaded": {"version": "3.14.0", "configuration": {"Py_GIL_DISABLED": 1, "py_version_nodot": "314"}},
    "debug": {"configuration": {"Py_DEBUG": 1}},
    "free-threaded and debug": {"version": "3.13.2", "configuration": {"Py_DEBUG": 1, "Py_GIL_DISABLED": 1}},
    "PyPy": {
        "implementation": "pypy",
        "version": "3.10.14",
        "configuration": {"EXT_SUFFIX": ".pypy310-pp73-x86_64-linux-gnu.so", "py_version_nodot": "310"},
    },
    "GraalPy": {
        "implementation": "graalpy",
        "configuration": {"EXT_SUFFIX": ".graalpy-38-native-x86_64-linux.so", "py_version_nodot": None},
    },
    "Pyston": {"implementation": "pyston", "configuration": {"EXT_SUFFIX": ".pyston-23-x86_64-linux-gnu.so"}},
    "another with CPython's suffix": {"implementation": "other"},
    "macOS on ARM": {"system": "Darwin", "platform": "macosx-11.0-arm64", "macos": ["14.5", "arm64"]},
    "macOS on Intel": {"system": "Darwin", "platform": "macosx-10.9-x86_64", "macos": ["10.15.7", "x86_64"]},
    "Windows": {"system": "Windows", "platform": "win-amd64"},
    "glibc of a fork": {"glibc": "2.20-2014.11"},
    "another C library": {"glibc": None},
    "a machine without manylinux": {"platform": "linux-sparc64"},
    "a cluster's POWER": {"platform": "linux-ppc64le", "glibc": "2.28"},
}


@pytest.mark.parametrize("name", BUILDS)
def test_builds_that_are_not_here(name: str, pretend: Any) -> None:
    """Builds, implementations and systems that no test machine has get the tags that `packaging` gives them."""
    facts = changed(facts_of_this(), **BUILDS[name])
    found = compatibility.tags(facts)
    assert found == pretend(facts)
    assert len(found) > 20


ARM_HARD = elf.ARM_VERSION_5 | elf.ARM_HARD_FLOAT
NARROW = [
    ("linux-x86_64", 32, elf.I386, 0, "manylinux_2_17_i686"),
    ("linux-x86_64", 64, 62, 0, ""),
    ("linux-aarch64", 32, elf.ARM, ARM_HARD, "manylinux_2_17_armv7l"),
    ("linux-aarch64", 32, elf.ARM, elf.ARM_VERSION_5, ""),
    ("linux-armv7l", 32, elf.ARM, ARM_HARD, "manylinux_2_17_armv7l"),
    ("linux-i686", 32, elf.I386, 0, "manylinux_2_5_i686"),
]


@pytest.mark.parametrize(("platform_name", "bits", "machine", "flags", "expected"), NARROW)
def test_of_32_bits(
    platform_name: str, bits: int, machine: int, flags: int, expected: str, tmp_path: Path, pretend: Any
) -> None:
    """A Python of 32 bits on a machine of 64 gets the wheels that its own program header allows, and no others."""
    executable = program(tmp_path / "python", bits=bits, machine=machine, flags=flags)
    facts = changed(facts_of_this(), platform=platform_name, bits=32, executable=executable)
    found = compatibility.tags(facts)
    assert found == pretend(facts)
    assert any(tag.endswith(expected) for tag in found) if expected else not any("manylinux" in tag for tag in found)


def test_musl(tmp_path: Path, pretend: Any) -> None:
    """A Python that musl's loader starts gets the wheels for that version of musl: the loader says which."""
    loader = tmp_path / "ld-musl-x86_64.so.1"
    loader.write_text(
        "#!/bin/sh\nprintf 'musl libc (x86_64)\\nVersion 1.2.4\\nDynamic Program Loader\\n' >&2\nexit 1\n"
    )
    loader.chmod(0o755)
    executable = program(tmp_path / "python", bits=64, machine=62, loader=str(loader))
    facts = changed(facts_of_this(), executable=executable, glibc=None)
    found = compatibility.tags(facts)
    assert found == pretend(facts)
    best = next(tag for tag in found if "musl" in tag)
    assert best.endswith("musllinux_1_2_x86_64")


def test_a_loader_ends_where_its_name_does(tmp_path: Path) -> None:
    """Whoever wrote a shorter name over it has left what was behind; the kernel does not read on."""
    executable = program(tmp_path / "python", bits=64, machine=62, loader="/lib/ld-musl.so\0dl.so.1")
    header = elf.read_header(executable)
    assert header is not None
    assert header.loader == "/lib/ld-musl.so"


HOOKS = [
    "def manylinux_compatible(major, minor, arch): return (major, minor) <= (2, 17)",
    "def manylinux_compatible(major, minor, arch): return None if minor > 20 else minor != 12 and arch == 'x86_64'",
    "manylinux2014_compatible = False",
    "manylinux1_compatible = manylinux2010_compatible = 0",
    "",
]


@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_distributor_rules_out(hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretend: Any) -> None:
    """The module `_manylinux`, asked in the target, rules out what it rules out for `packaging` there."""
    (tmp_path / "_manylinux.py").write_text(hook)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "_manylinux", raising=False)
    # -I would ignore it, and to put it into a real Python's own directories is nothing that a test may do.
    script = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_path(sys.argv[2], {}, '__main__')"
    words = [sys.executable, "-I", "-c", script, str(tmp_path), interpreter._CHILD]
    asked = subprocess.run(words, capture_output=True, check=True)
    facts = json.loads(asked.stdout.splitlines()[-1])
    assert compatibility.tags(facts) == pretend(facts)
    monkeypatch.delitem(sys.modules, "_manylinux", raising=False)


VERSIONS = [
    ([3, 14, 0, "candidate", 2], "3.14.0c2"),
    ([3, 14, 0, "alpha", 1], "3.14.0a1"),
    ([7, 3, 16, "final", 0], "7.3.16"),
]


@pytest.mark.parametrize(("info", "expected"), VERSIONS)
def test_implementation_version(info: list[Any], expected: str) -> None:
    """The version of the implementation is written as PEP 508 writes it."""
    facts = {**facts_of_this(), "implementation_version": info}
    assert compatibility.markers(facts)["implementation_version"] == expected


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(9), b"\x7fELF\x07" + bytes(80)]
)
def test_a_program_that_is_no_elf_file(content: bytes, tmp_path: Path) -> None:
    """What is no ELF file, or half of one, has no header, and nothing is raised."""
    (tmp_path / "python").write_bytes(content)
    assert elf.read_header(str(tmp_path / "python")) is None
    assert elf.read_header(str(tmp_path / "absent")) is None


@pytest.mark.skipif(sys.platform == "win32", reason="programs of Windows have no ELF header")
def test_a_real_program() -> None:
    """The header of the Python that runs here names a loader that is there."""
    header = elf.read_header(os.path.realpath(sys.executable))
    assert header is not None
    assert header.bits == struct.calcsize("P") * 8
    assert not header.loader or Path(header.loader).exists()
