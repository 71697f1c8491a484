"""Asking a Python what it is: from its standard library alone, whatever is installed beside it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from envsync.errors import InterpreterError, UnsupportedPythonError
from envsync.python import interpreter
from envsync.system import core
from tests import pythons


@pytest.mark.parametrize("version", pythons.VERSIONS)
def test_the_standard_library_is_enough(version: str) -> None:
    """The script runs in every supported Python without `site`, so without any library, ours or theirs."""
    executable = pythons.need(version)
    words = [executable, "-I", "-S", "-B", "-W", "error", interpreter._CHILD]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert interpreter.inspect(executable, os.devnull).short_version == version


def test_a_library_of_the_target_is_not_asked(tmp_path: Path) -> None:
    """Broken, odd or old libraries in the target, of names that ours have, change nothing."""
    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env/lib").iterdir()) / "site-packages"
    for name in ("packaging", "envsync", "platformdirs"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("raise SystemExit('imported')")
    (site / "talks.pth").write_text('import sys; print(\'{"version": "2.0"}\')\n')
    found = interpreter.inspect(str(tmp_path / "env/bin/python"), os.devnull)
    assert found.version == "%d.%d.%d" % sys.version_info[:3]  # noqa: UP031
    assert found.tags == interpreter.inspect(interpreter.own_base(), os.devnull).tags


def test_asking_writes_nothing_beside_the_target(tmp_path: Path) -> None:
    """A Python that is asked keeps no bytecode: it may be somebody else's."""
    venv.create(tmp_path / "env", symlinks=True)
    site = next((tmp_path / "env/lib").iterdir()) / "site-packages"
    (site / "loud.py").write_text("")
    (site / "loud.pth").write_text("import loud\n")
    interpreter.inspect(str(tmp_path / "env/bin/python"), os.devnull)
    assert not (site / "__pycache__").exists()


@pytest.mark.parametrize("name", ["_PYTHON_HOST_PLATFORM", "_PYTHON_SYSCONFIGDATA_NAME", "PYTHONPLATLIBDIR"])
def test_variables_do_not_change_the_answer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable makes a Python believe of itself is not kept for those who do not have it."""
    before = interpreter.inspect(sys.executable, os.devnull)
    monkeypatch.setenv(name, "linux-sparc")
    assert interpreter.inspect(sys.executable, os.devnull) == before


def test_the_kernel_is_that_of_this_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Release and version of the kernel come from the host that asks, not from the one that filled the cache."""
    first = interpreter.inspect(sys.executable, str(tmp_path))
    system = os.uname()
    other = (system.sysname, system.nodename, "2.6.32", "#1 of another host", system.machine)
    monkeypatch.setattr(core.os, "uname", lambda: os.uname_result(other))
    monkeypatch.setattr(interpreter, "_ask", lambda executable: pytest.fail("it is cached"))
    second = interpreter.inspect(sys.executable, str(tmp_path))
    assert (second.markers["platform_release"], second.markers["platform_version"]) == ("2.6.32", "#1 of another host")
    assert first.markers["platform_release"] == system.release
    assert (first.fingerprint, first.key) == (second.fingerprint, second.key)


@pytest.mark.parametrize("version", ["3.8", "3.7", "3.6"])
def test_too_old(version: str) -> None:
    """A Python that is too old is named with its version, and refused."""
    with pytest.raises(UnsupportedPythonError, match=rf"is Python {version}\.\d+; environments need Python 3.9"):
        interpreter.inspect(pythons.need(version), os.devnull)


SAYS = ["", "hello", "[]", "{}", "null", '{"versio', "\n\n"]


@pytest.mark.parametrize("answer", SAYS)
def test_what_is_no_python(answer: str, tmp_path: Path) -> None:
    """A program that answers something else is refused with a sentence."""
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nprintf '%s' '{answer}'\n")
    fake.chmod(0o755)
    with pytest.raises(InterpreterError, match="does not answer as a Python does"):
        interpreter.inspect(str(fake), os.devnull)


def test_what_is_said_after_the_answer(tmp_path: Path) -> None:
    """A wrapper, or a module at its exit, may have a last word."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\n{shlex.quote(sys.executable)} "$@"\necho goodbye\n')
    fake.chmod(0o755)
    assert interpreter.inspect(str(fake), os.devnull).executable == sys.executable


def test_a_wrapper_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable or a file makes pyenv's `python` start today says nothing about the next time."""
    fake, cache = tmp_path / "python", str(tmp_path / "cache")
    fake.write_text('#!/bin/sh\nexec "$WRAPPED" "$@"\n')
    fake.chmod(0o755)
    for started in (interpreter.own_base(), pythons.need("3.10"), pythons.need("3.12")):
        monkeypatch.setenv("WRAPPED", started)
        assert interpreter.inspect(str(fake), cache) == interpreter.inspect(started, cache)


@pytest.mark.parametrize("versioned", [True, False])
def test_our_own_python_is_named_with_its_version(versioned: bool, tmp_path: Path) -> None:
    """An environment stands on `python3.11` rather than `python3`, which will be another version one day."""
    short = ".".join(map(str, sys.version_info[:2]))
    base = os.path.realpath(interpreter.own_base())
    for name in ("python3", f"python{short}") if versioned else ("python3",):
        (tmp_path / name).symlink_to(base)
    script = (
        f"import os, sys; sys.path.insert(0, {str(Path(interpreter.__file__).parent.parent.parent)!r})\n"
        "from envsync.python.interpreter import own_base\nfrom envsync.python.venv import run_venv\n"
        "run_venv(own_base(), 'env', -1)\nprint(own_base())"
    )
    words = [str(tmp_path / "python3"), "-I", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True)
    expected = str(tmp_path / (f"python{short}" if versioned else "python3"))
    assert done.stdout.strip() == expected
    links = [os.readlink(path) for path in (tmp_path / "env/bin").iterdir() if path.is_symlink()]
    assert sorted(link for link in links if os.path.isabs(link)) == [expected]
    ask = "import sys; print(sys.prefix)"
    found = subprocess.run([tmp_path / "env/bin/python", "-c", ask], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(tmp_path / "env")
