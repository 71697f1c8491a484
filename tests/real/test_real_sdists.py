"""Source distributions that lock files of ML and HPC projects have, built as pip builds them: same files, same RECORD.

Needs a package index and, for the last two, a C compiler: `pytest -m network`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from envsync.building import variables
from envsync.building.archives import unpack
from envsync.building.backend import build_wheel, check
from envsync.building.environments import BuildEnvironments
from envsync.lockfile.sources import Sources
from envsync.python.interpreter import inspect, own_base
from envsync.store.store import Store

pytestmark = [pytest.mark.network, pytest.mark.filterwarnings("ignore")]  # setuptools warns of old trees

PURE = [
    *("antlr4-python3-runtime==4.9.3", "docopt==0.6.2", "wget==3.2", "rouge-score==0.1.2", "seqeval==1.2.2"),
    *("encodec==0.1.1", "jieba==0.42.1", "sacremoses==0.0.53", "gym==0.26.2", "langdetect==1.0.9"),
    *("asciitree==0.3.3", "pyperclip==1.9.0", "termcolor==1.1.0", "pathtools==0.1.2", "wikipedia==1.4.0"),
    *("nvidia-ml-py3==7.352.0", "gputil==1.4.0", "sgmllib3k==1.0.0", "promise==2.3", "fvcore==0.1.5.post20221221"),
]
SEED = {"PYTHONHASHSEED": "0"}
"""What gym requires is in a set: without this, no two builds of it are the same, whoever makes them."""
NATIVE = ["llist==0.7.1", "pesq==0.0.4", "crcmod==1.7"]


def by_pip(what: str, directory: Path) -> tuple[str, str]:
    """Return the source distribution and the wheel that pip makes of it."""
    environ = {**os.environ, "SOURCE_DATE_EPOCH": variables.SOURCE_DATE_EPOCH, **SEED}
    name = what.partition("==")[0]
    common = ["--no-deps", "--no-binary", name, what]
    for words in (["download", "-q", *common], ["wheel", "-q", "--no-cache-dir", *common]):
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, "-d" if words[0] == "download" else "-w", str(directory / words[0])],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return (str(next((directory / "download").iterdir())), str(next((directory / "wheel").glob("*.whl"))))


def contents(wheel: str) -> dict[str, str]:
    """Return the lines of RECORD: name → hash and size."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        lines = archive.read(record).decode().splitlines()
    assert sorted(line.rsplit(",", 2)[0].strip('"') for line in lines) == sorted(n for n in names if n[-1] != "/")
    return dict(line.split(",", 1) if line[0] != '"' else line[1:].split('",', 1) for line in lines)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", [*PURE, *NATIVE])
def test_as_pip_builds_it(what: str, tmp_path: Path) -> None:
    """The wheel has the same name, the same files and the same hashes; compiled ones have the same names."""
    sdist, theirs = by_pip(what, tmp_path)
    name, _, version = what.lower().partition("==")
    store = Store(str(tmp_path / "cache"))
    python, log = inspect(own_base(), store.root), str(tmp_path / "log")
    out = tmp_path / "out"
    out.mkdir()
    ours = build_wheel(
        unpack(sdist, str(tmp_path / "tree"), name=name),
        str(out),
        editable=False,
        package=name,
        environments=BuildEnvironments(store, python, Sources(), package=name, log=log),
        config={},
        requires=[],
        variables={**variables.for_build(os.environ), **SEED},
        log=log,
    )
    check(ours, name, version, python)
    assert os.path.basename(ours) == os.path.basename(theirs)
    found, expected = contents(ours), contents(theirs)
    if what in NATIVE:
        found, expected = (
            {file: "" if file.endswith(".so") else line for file, line in each.items()} for each in (found, expected)
        )
    assert found == expected
