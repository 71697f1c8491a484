"""Other versions of envsync, as source trees that are run as they stand: that of an old commit, and one to come."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

OLD = "eaefb3bd252f8e4517dd4a58cefb619c808f66ff"
"""The first commit that has the formats of today."""
START = """\
import os, signal, sys
tree, strike = sys.argv.pop(1), int(sys.argv.pop(1))
sys.path[0] = tree
left = []


def hook(event, arguments):
    if event != "os.rename" or not strike:
        return
    if str(arguments[1]).endswith("/.envsync/journal"):
        left.append(strike)
    elif left:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(hook)
from envsync.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
"""Starts the envsync of a tree; killed before the N-th rename after its journal was in place, if that is not 0."""


class Version:
    """One version.

    :ivar tree: the directory that its package is in
    :ivar start: what starts it
    """

    def __init__(self, tree: Path, start: Path) -> None:
        self.tree = tree
        self.start = start

    def command(self, *arguments: str, strike: int = 0) -> list[str]:
        """Return the words that run it."""
        return [sys.executable, str(self.start), str(self.tree), str(strike), *arguments]


def this(directory: Path) -> Version:
    """Return the version under test, run as the others are."""
    start = directory / "start.py"
    start.write_text(START)
    return Version(ROOT, start)


def old(directory: Path) -> Version:
    """Return the version of an old commit. Skips where there is no history: a release has none."""
    tree = directory / "old"
    tree.mkdir()
    try:
        packed = subprocess.run(["git", "archive", OLD, "envsync"], cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no git, which has the old version")
    if packed.returncode:
        pytest.skip(f"the history from which the old version is taken is not here: {packed.stderr.decode()}")
    subprocess.run(["tar", "x"], input=packed.stdout, cwd=tree, check=True)
    return Version(tree, this(directory).start)


NUMBER = r'(?m)^(?:FORMAT = |HEADER = "envsync-[a-z]+ )(\d+)'
WRITERS = (
    *("launch/stamp", "launch/names", "locks/kind", "store/users", "system/records", "transaction/journal"),
    "bundling/directory",
)
"""The modules that have a number of their own."""
ENTRIES = ("store/bytecode", "wheel/manifest")
"""Those whose number goes with a directory of the cache."""


def newer(directory: Path, *only: str, entries: str = "beside") -> Version:
    """Return a version to come: the one under test, with the next number in what it writes.

    :param only: the modules whose number it is; default: all
    :param entries: "beside": what is in the cache has another directory, too, as is the rule; "within": it has not
    """
    tree = directory / f"newer-{entries}"
    shutil.copytree(ROOT / "envsync", tree / "envsync", ignore=shutil.ignore_patterns("__pycache__"))
    for name in only or (*WRITERS, *ENTRIES):
        path = tree / "envsync" / f"{name}.py"
        text, count = re.subn(NUMBER, _raise, path.read_text())
        assert count == 1, f"{path} has no number, or more than one"
        path.write_text(text)
    for path in (tree / "envsync").rglob("*.py") if entries == "beside" and not only else ():
        path.write_text(re.sub(r"/v1\b", "/v2", path.read_text()))
    return Version(tree, this(directory).start)


def _raise(match: re.Match[str]) -> str:
    number = match[1]
    return f"{match[0].removesuffix(number)}{int(number) + 1}"
