"""Public lock files of uv beside uv itself: what each selects for every extra, group and member is compared.

    REAL_LOCKS=DIR python -m pytest -m network -s tests/real/test_real_uv_locks.py

`uv_locks.txt` lists them. DIR holds a git repository of each, DIR/OWNER+NAME or DIR/OWNER+NAME/repo, bare or not, with
that commit; without REAL_LOCKS they are fetched, the commit alone. No file of theirs is kept here. uv selects with
`uv sync --frozen --dry-run`, which needs neither index nor builds; what it refuses has to be refused here, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from envsync.lockfile import Choice
from envsync.lockfile.uv.records import Lock
from envsync.python import interpreter
from tests import pythons
from tests.uv_oracle import UV, asked, equal, installable, ours, parsed

pytestmark = [pytest.mark.network, pytest.mark.timeout(900)]

LIST = Path(__file__).with_name("uv_locks.txt")
PYTHONS = ("3.11", "3.12", "3.13")
NO_WHEEL = "doesn't have a source distribution or wheel for the current platform"
EXCUSED = {
    # uv counts an extra that is chosen for one member as chosen for those that it requires, when it looks for what
    # excludes each other, and only then: it refuses what it could install.
    "pydantic/pydantic-ai/uv.lock": "are incompatible with the declared conflicts",
}
"""What uv refuses, and is selected here, by lock file: what it says."""


class Listed(NamedTuple):
    """A line of the list."""

    repository: str
    commit: str
    path: str
    place: str

    @property
    def script(self) -> str:
        return PurePosixPath(self.place).name if self.place.endswith(".py") else ""

    @property
    def name(self) -> str:
        return f"{self.script}.lock" if self.script else "uv.lock"

    def __str__(self) -> str:
        return f"{self.repository}/{self.path}"


LISTED = [Listed(*line.split()) for line in LIST.read_text().splitlines() if not line.startswith("#")]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repositories")


def git(repository: Path, *words: str) -> bytes:
    return subprocess.run(["git", "-C", str(repository), *words], capture_output=True, check=True).stdout


def repository_of(listed: Listed, fetched: Path) -> Path:
    """Return a repository that has the commit, or skip the test."""
    name = listed.repository.replace("/", "+")
    if given := os.environ.get("REAL_LOCKS"):
        found = [place for place in (Path(given, name, "repo"), Path(given, name)) if place.is_dir()]
        if not found:
            pytest.skip(f"REAL_LOCKS has no {name}")
        return found[0]
    place = fetched / f"{name}-{listed.commit[:8]}"
    if not place.exists():
        git(fetched, "init", "-q", "--bare", str(place))
        url = f"https://github.com/{listed.repository}"
        try:
            git(place, "fetch", "-q", "--depth", "1", "--filter=blob:none", url, listed.commit)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(place)
            pytest.skip(f"it cannot be fetched: {error.stderr.decode().strip()}")
    return place


def lay_out(listed: Listed, repository: Path, directory: Path) -> Path:
    """Write the lock file, and the projects or the script that uv looks for with it.

    :returns: the directory of the lock file
    """

    def content(path: str) -> bytes:
        return git(repository, "show", f"{listed.commit}:{path}")

    lock = content(listed.path)
    if listed.path.endswith(".snap"):  # of uv's own tests, with a heading, and patch versions of Python blotted out
        lock = lock.split(b"\n---\n", 1)[1].replace(b".[X]", b".0")
    (directory / listed.name).write_bytes(lock)
    if listed.script:
        (directory / listed.script).write_bytes(content(listed.place))
        return directory
    root = PurePosixPath(listed.place)
    listing = git(repository, "ls-tree", "-r", "--name-only", listed.commit, "--", f"./{root}").decode()
    for path in listing.splitlines():
        if PurePosixPath(path).name == "pyproject.toml":
            target = directory / PurePosixPath(path).relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content(path))
    return directory


def choices(lock: Lock) -> Iterator[Choice]:
    """Yield what is asked for: nothing, each extra and each group, all of them, and each member with all of its own."""
    yield Choice()
    if not lock.projects:
        return
    yield Choice(no_default_groups=True, no_install_project=True)
    yield Choice(all_extras=True)
    yield Choice(all_groups=True)
    root = lock.records[lock.root] if lock.root is not None else None
    for extra in sorted(root.known_extras) if root else []:
        yield Choice(extras=(extra,))
    for group in sorted(root.known_groups if root else lock.groups):
        yield Choice(groups=(group,), no_default_groups=True)
        yield Choice(only_groups=(group,))
    if lock.members:
        yield Choice(all_packages=True, no_install_workspace=True)
    for member in lock.members:
        yield Choice(packages=(member,))
        yield Choice(packages=(member,), all_extras=True, all_groups=True)


@pytest.mark.skipif(not UV, reason="there is no uv on PATH")
@pytest.mark.parametrize("listed", LISTED, ids=str)
def test_the_same_set_is_selected_as_by_uv(listed: Listed, fetched: Path, tmp_path: Path) -> None:
    """For each Python, extra, group and member. What only has to be built keeps it from being installed so far."""
    directory = lay_out(listed, repository_of(listed, fetched), tmp_path)
    lock = parsed(directory / listed.name)
    differences, cases, refused, excused = [], 0, 0, 0
    blockers = []
    for version in PYTHONS:
        python = pythons.need(version)
        facts = interpreter.inspect(python, str(tmp_path / "cache"))
        for choice in choices(lock.lock):
            uv = asked(directory, python, choice, script=listed.script, cache=tmp_path / "uv-cache")
            own = ours(lock, facts, choice)
            cases += 1
            refused += bool(uv.refusal)
            if NO_WHEEL in uv.refusal:
                own = own._replace(refusal=installable(lock, facts, choice))
            if str(listed) in EXCUSED and EXCUSED[str(listed)] in uv.refusal:
                excused += not own.refusal
            elif not equal(uv, own):
                differences.append(f"{version} {choice}:\n    uv:      {uv}\n    envsync: {own}")
        blockers.append(installable(lock, facts, Choice(no_install_workspace=True)))
    print(
        f"{listed}: {cases} cases, {refused} refused by uv, {len(differences)} different, {excused} excused; ", end=""
    )
    print(f"without the project: {min(blockers).partition(chr(10))[0] or 'it can be installed'}")
    assert not differences, "\n".join(differences)
