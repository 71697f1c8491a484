"""pip, as it is run to fill an environment of another Python: ours, or that Python's own where ours is too new for it.

pip gives up a Python some time before those who have to use it: 26.3 wants 3.10 of the Python that it is told to
install for (`--python`). Each Python brings a pip that it can run, in `ensurepip`. That is put into a directory that
goes in the end, without the setuptools that Pythons before 3.12 bring as well: nobody is to take it for installed.
"""

from __future__ import annotations

import glob
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from packaging.specifiers import SpecifierSet

from envsync.system import paths

Run = Callable[[Sequence[str], Mapping[str, str]], int]
"""Runs a program with variables, and returns its exit status."""


def is_too_new_for(python: str) -> bool:
    """Tell whether our pip refuses to install for a Python of that version."""
    wanted = metadata.metadata("pip")["Requires-Python"] or ""
    return not SpecifierSet(wanted).contains(python, prereleases=True)


def ours(python: str) -> list[str]:
    """Return the words that run our pip for a Python, by its path."""
    return [sys.executable, "-I", "-m", "pip", "--python", python]


def its_own(python: str, directory: str, environ: Mapping[str, str], run: Run) -> list[str] | None:
    """Return the words that run the pip that a Python brings; None if it brings none, as some distributions have it.

    :param directory: where pip is put
    """
    root = paths.join(directory, "root")
    if run([python, "-I", "-m", "ensurepip", "--root", root], environ):
        return None
    found = glob.glob("**/*-packages/pip", root_dir=root, recursive=True, include_hidden=True)  # as in ~/.cache
    if not found:
        return None
    shutil.move(paths.join(root, found[0]), paths.join(directory, "pip"))
    shutil.rmtree(root)
    return [python, "-I", paths.join(directory, "pip")]
