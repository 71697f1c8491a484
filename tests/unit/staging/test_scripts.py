"""Scripts: what is written at their head really runs, wherever the environment is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envsync.staging.scripts import entry_point, rewrite, shebang
from envsync.wheel.manifest import Script

MODULE = """\
import sys
class Tool:
    @staticmethod
    def main():
        print("ran", sys.executable, *sys.argv[1:])
        return 3
main = Tool.main
"""


def python_at(directory: Path) -> str:
    """Make an interpreter with a module `tool` in a directory, and return its path."""
    (directory / "bin").mkdir(parents=True)
    python = directory / "bin" / "python"
    python.symlink_to(getattr(sys, "_base_executable", sys.executable))
    version = "python%d.%d" % sys.version_info[:2]  # noqa: UP031
    site = directory / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    (site / "tool.py").write_text(MODULE)
    home = os.path.dirname(os.path.realpath(python))
    (directory / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    return str(python)


def padded(directory: Path, length: int) -> Path:
    """Return a directory whose `bin/python` has a path of the given length."""
    missing = length - len(f"{directory}//bin/python".encode())
    parts = []
    while missing > 100:
        parts.append("x" * 99)
        missing -= 100
    return directory.joinpath(*parts, "y" * missing)


def run(script: Path, content: bytes, *arguments: str) -> subprocess.CompletedProcess[str]:
    script.write_bytes(content)
    script.chmod(0o755)
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


TOOL = Script("tool", "tool", "main", "console")


@pytest.mark.parametrize("length", [100, 124, 125, 126, 127, 128, 129, 254, 255, 256, 257, 600])
def test_a_long_path_runs(tmp_path: Path, length: int) -> None:
    """However long the interpreter's path is, an entry point runs with it, gets its arguments and its status out."""
    python = python_at(padded(tmp_path, length))
    assert len(python) == length
    done = run(tmp_path / "tool", entry_point(TOOL, python), "one", "two words")
    assert (done.stdout, done.returncode) == (f"ran {python} one two words\n", 3), done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "  ",
        "it's",
        "'quoted' \"twice\"",
        "'''",
        "' '' ''' ",
        "$HOME `id` $(id)",
        "\\u\\x",
        "tab\tbed",
        "ümlaut",
        "ümlaut und Leerzeichen",
        "new\nline",
        "#!",
        "-x",
    ],
)
def test_a_path_with_odd_characters_runs(tmp_path: Path, name: str) -> None:
    """Whatever the environment's directory is called, its scripts run."""
    python = python_at(tmp_path / name)
    done = run(tmp_path / "tool", entry_point(TOOL, python), "one")
    assert (done.stdout, done.returncode) == (f"ran {python} one\n", 3), done.stderr


def test_the_limit_is_that_of_old_kernels() -> None:
    """Up to 127 bytes the line is a plain one; what is longer goes by the shell, and bytes count, not characters."""
    python = "/" + "x" * (127 - len("#!/\n"))
    assert shebang(python) == f"#!{python}\n".encode()
    assert len(shebang(python)) == 127
    assert shebang(python + "x").startswith(b"#!/bin/sh\n")
    assert shebang("/" + "ü" * 63).startswith(b"#!/bin/sh\n")


@pytest.mark.parametrize("attr", ["main", "Tool.main"])
def test_an_entry_point(tmp_path: Path, attr: str) -> None:
    """An entry point calls what it names, an attribute of a class as well, and exits with what that returns."""
    python = python_at(tmp_path / "env")
    done = run(tmp_path / "tool", entry_point(Script("tool", "tool", attr, "console"), python), "x")
    assert (done.stdout, done.returncode) == (f"ran {python} x\n", 3), done.stderr


def test_an_entry_point_does_not_import_what_it_does_not_need(tmp_path: Path) -> None:
    """Starting a script does not import `re`, as the template of other installers does."""
    assert b"re" not in entry_point(TOOL, "/python").split(b"from")[0].split()


@pytest.mark.parametrize("length", [60, 200], ids=["short", "long"])
@pytest.mark.parametrize(
    ("first", "flag"),
    [
        (b"#!python\n", ""),
        (b"#!python -u\n", "-u"),
        (b"#!python  -OO \n", "-OO"),
        (b"#!pythonw\n", ""),
        (b"#!python\r\n", ""),
    ],
)
def test_rewriting_keeps_arguments_and_body(tmp_path: Path, first: bytes, flag: str, length: int) -> None:
    """A script's `#!python` becomes the interpreter, with its arguments, and nothing else of it changes."""
    python = python_at(padded(tmp_path, max(length, len(str(tmp_path)) + 15)))
    body = b"import sys\nprint(sys.executable, sys.flags.optimize, sys.stdout.write_through, *sys.argv[1:])\n"
    content = rewrite(first + body, python)
    assert content.endswith(body)
    done = run(tmp_path / "tool", content, "x")
    optimize, unbuffered = 2 * (flag == "-OO"), flag == "-u"
    assert done.stdout == f"{python} {optimize} {unbuffered} x\n", done.stderr


@pytest.mark.parametrize("content", [b"#!python", b"#!python -u"])
def test_rewriting_a_script_of_one_line(content: bytes) -> None:
    """A script that is nothing but its first line stays that."""
    assert rewrite(content, "/p") == content.replace(b"python", b"/p") + b"\n"


def test_rewriting_keeps_bytes(tmp_path: Path) -> None:
    """The body may be in any encoding."""
    body = b"# -*- coding: latin-1 -*-\nprint('\xe4')\n"
    assert rewrite(b"#!python\n" + body, "/python").endswith(b"\n" + body)
