"""Two versions of envsync on one cache and one environment, at once: of one format, and of two."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contention import versions
from tests.contention.test_leaders import DRAINING, in_use, wait_for, wait_for_phase
from tests.contention.test_many_processes import events
from tests.contention.versions import Version
from tests.environments import FIXTURES, leftovers, unverified

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
HELLO, HOWDY = "HELLO, WORLD!\n", "HOWDY, PARTNER!\n"

Process = subprocess.Popen[str]


class Site:
    """A directory with one cache, which all versions use.

    :ivar env: the environment that is named unless another one is
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = root / "env"
        self.cache = root / "cache"
        self.events = root / "events.jsonl"
        self.started: list[Process] = []

    def start(self, version: Version, *arguments: str, strike: int = 0) -> Process:
        """Start a version in it."""
        variables = {"ENVSYNC_ENV": "env", "ENVSYNC_CACHE_DIR": str(self.cache), "ENVSYNC_EVENTS": str(self.events)}
        process = subprocess.Popen(
            version.command(*arguments, strike=strike),
            cwd=self.root,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self, process: Process) -> tuple[int, str, str]:
        """Wait for the end of a process: its status, and what it has written."""
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def run(self, version: Version, *arguments: str, strike: int = 0) -> tuple[int, str, str]:
        """Run a version to its end."""
        return self.end(self.start(version, *arguments, strike=strike))

    def greet(self, version: Version, lock: str = LOCK) -> str:
        """Run the program that a lock file asks for; return what it says."""
        status, out, err = self.run(version, "run", "--lock", lock, "--", "greet")
        assert status == 0, err
        return out


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


@pytest.fixture
def ours(tmp_path: Path) -> Version:
    return versions.this(tmp_path)


@pytest.fixture
def old(tmp_path: Path) -> Version:
    return versions.old(tmp_path)


def content(*directories: Path) -> dict[str, str]:
    """Return what files and links there are, with hashes of their content.

    But for locks, and for what is left to those who wait.
    """
    found = {}
    for directory in directories:
        for path in directory.rglob("*"):
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file() and path.name != "failure.json" and path.stat().st_size:
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


class TestOneFormat:
    """Ours, and one of two hundred commits ago."""

    def test_they_launch_and_wait_together(self, site: Site, ours: Version, old: Version) -> None:
        """One of them syncs, all others run; and each finds current what the other has made."""
        started = [site.start(version, "run", "--lock", LOCK, "--", "greet") for version in (ours, old) * 4]
        assert [site.end(process)[:2] for process in started] == [(0, HELLO)] * 8
        assert events(site.events).count("synced") == 1
        assert unverified(site.env) == []
        assert set(leftovers(site.env)) <= {"waiting"}  # empty, of who began to wait when the sync was done

    @pytest.mark.parametrize("first", ["ours", "old"])
    def test_each_finishes_what_the_other_has_decided(
        self, site: Site, ours: Version, old: Version, first: str
    ) -> None:
        """A leader is killed in the midst of its renames; the other version goes on with its journal."""
        one, other = (ours, old) if first == "ours" else (old, ours)
        assert site.greet(one) == HELLO
        assert site.run(one, "sync", "--lock", NEXT, strike=2)[0] == -signal.SIGKILL
        assert (site.env / ".envsync" / "journal").exists()
        assert site.greet(other, NEXT) == HOWDY
        assert "recovered" in events(site.events)
        assert (unverified(site.env), leftovers(site.env)) == ([], [])

    @pytest.mark.parametrize("first", ["ours", "old"])
    def test_each_takes_over_from_the_other(self, site: Site, ours: Version, old: Version, first: str) -> None:
        """A leader that waits for commands is killed; a waiter of the other version goes on."""
        one, other = (ours, old) if first == "ours" else (old, ours)
        assert site.greet(one) == HELLO
        with in_use(site.env):
            leader = site.start(one, "sync", "--lock", NEXT)
            wait_for_phase(site.env, DRAINING)
            waiter = site.start(other, "run", "--lock", NEXT, "--", "greet")
            wait_for((site.env / ".envsync" / "waiting").exists, "the waiter")
            leader.kill()
            wait_for_phase(site.env, DRAINING, besides=(leader.pid,))
        status, out, err = site.end(waiter)
        assert (status, out) == (0, HOWDY), err
        assert "took_over" in events(site.events)

    def test_one_cleans_while_the_other_syncs(self, site: Site, ours: Version, old: Version) -> None:
        """Clean, prune and verify of one version are in no sync's way, and take nothing for damaged."""
        for number, (one, other) in enumerate([(ours, old), (old, ours)]):
            syncs = [
                site.start(one, "sync", "--lock", lock, "--env", f"env-{number}-{each}")
                for each in range(3)
                for lock in (LOCK, NEXT)
            ]
            cleaners = [site.start(other, "cache", *words) for words in (["clean"], ["verify"], ["prune"])]
            assert [site.end(process)[0] for process in (*syncs, *cleaners)] == [0] * 9
            assert site.run(other, "sync", "--lock", LOCK, "--env", f"env-{number}-again", "--compile-bytecode")[0] == 0
            assert site.run(one, "cache", "verify")[0] == 0
        for env in site.root.glob("env-*"):
            assert unverified(env) == []

    def test_links_into_the_cache(self, site: Site, ours: Version, old: Version) -> None:
        """What an environment of one version links to is not cleaned by the other."""
        for version, other in ((ours, old), (old, ours)):
            assert site.run(version, "sync", "--lock", LOCK, "--link-mode", "symlink")[0] == 0
            assert site.run(other, "cache", "clean")[0] == 0
            assert site.greet(other) == HELLO
            assert unverified(site.env) == []


UPGRADE = "pip install --upgrade envsync"
REFUSED = (
    ["run", "--lock", LOCK, "--", "greet"],
    ["run", "--lock", NEXT, "--", "greet"],
    ["sync", "--lock", NEXT],
    ["check", "--lock", LOCK, "--repair"],
)


def refused(site: Site, version: Version, *words: str) -> str:
    """Run a version that has to refuse, and return what it says."""
    status, out, err = site.run(version, *words)
    assert (status, out) == (125, ""), err
    assert "Traceback" not in err
    return err


class TestNewerFormat:
    """Ours, and one to come whose formats have the next number."""

    def test_its_environment_is_left_alone(self, site: Site, ours: Version, tmp_path: Path) -> None:
        """It is not taken for current, nor changed; the error says what to do. It goes on as before."""
        newer = versions.newer(tmp_path)
        assert site.greet(newer) == HELLO
        before = content(site.env)
        for words in REFUSED:
            assert UPGRADE in refused(site, ours, *words)
        assert content(site.env) == before
        assert site.greet(newer) == HELLO
        assert events(site.events).count("synced") == 1

    @pytest.mark.parametrize("module", ["launch/stamp", "locks/kind", "system/records"])
    def test_each_of_its_files_is_enough(self, site: Site, ours: Version, tmp_path: Path, module: str) -> None:
        """One file of a newer format is enough, whatever the others are."""
        newer = versions.newer(tmp_path, module)
        assert site.greet(newer) == HELLO
        before = content(site.env)
        assert UPGRADE in refused(site, ours, "sync", "--lock", NEXT)
        assert content(site.env) == before
        assert site.greet(newer) == HELLO
        next(site.env.glob("lib/*/site-packages/shout.py")).unlink()
        before = content(site.env)
        assert UPGRADE in refused(site, ours, "check", "--repair")
        assert content(site.env) == before

    @pytest.mark.parametrize("module", ["launch/stamp", "transaction/journal"])
    def test_what_it_has_decided_is_left_to_it(self, site: Site, ours: Version, tmp_path: Path, module: str) -> None:
        """Its leader was killed, before its commit or in the midst of it: it is for one of its kind to go on."""
        newer = versions.newer(tmp_path, module)
        assert site.greet(newer) == HELLO
        if module == "launch/stamp":
            with in_use(site.env):
                leader = site.start(newer, "sync", "--lock", NEXT)
                wait_for((site.env / ".envsync" / "stamp.draining").exists, "the leader")
                leader.kill()
                site.end(leader)
        else:
            assert site.run(newer, "sync", "--lock", NEXT, strike=2)[0] == -signal.SIGKILL
        before = content(site.env)
        assert UPGRADE in refused(site, ours, "sync", "--lock", LOCK)
        after = content(site.env)
        gone = {path.removeprefix(f"{site.env}/.envsync/") for path in before.keys() - after.keys()}
        # The leader's progress; and the stamp is put back, since it still fits.
        assert gone <= {"progress.json", "stamp.draining"}
        assert all(after[path] == before[path] for path in before.keys() & after.keys())
        assert site.greet(newer, NEXT) == HOWDY
        assert (unverified(site.env), leftovers(site.env)) == ([], [])

    def test_side_by_side_in_one_cache(self, site: Site, ours: Version, tmp_path: Path) -> None:
        """Each has entries of its own; neither prunes, verifies or cleans the other's."""
        newer = versions.newer(tmp_path)
        started = [
            site.start(version, "run", "--lock", LOCK, "--env", f"env-{name}", "--", "greet")
            for version, name in ((ours, "a"), (newer, "b")) * 2
        ]
        assert [site.end(process)[:2] for process in started] == [(0, HELLO)] * 4
        theirs = content(site.cache / "v2")
        assert theirs
        for words in (["verify"], ["prune", "--older-than", "0s"], ["clean"]):
            assert site.run(ours, "cache", *words)[0] == 0
        assert content(site.cache / "v2") == theirs
        assert not list((site.cache / "v1" / "wheels").iterdir())
        assert site.run(newer, "sync", "--lock", NEXT, "--env", "env-b")[0] == 0

    def test_entries_in_our_place(self, site: Site, ours: Version, tmp_path: Path) -> None:
        """One that breaks the rule is neither used, nor replaced, nor pruned as damaged; the error says what to do."""
        newer = versions.newer(tmp_path, entries="within")
        assert site.run(newer, "sync", "--lock", LOCK, "--env", "theirs", "--compile-bytecode")[0] == 0
        before = content(site.cache / "v1" / "wheels", site.cache / "v1" / "bytecode")
        status, _, err = site.run(ours, "sync", "--lock", LOCK)
        assert status == 125
        assert "a newer envsync has made it" in err
        assert UPGRADE in err
        assert site.run(ours, "cache", "verify")[0] == 0
        assert site.run(ours, "cache", "prune")[0] == 0
        assert content(site.cache / "v1" / "wheels", site.cache / "v1" / "bytecode") == before
        assert site.run(newer, "check", "--lock", LOCK, "--env", "theirs")[0] == 0

    def test_who_waits_for_it_is_refused(self, site: Site, ours: Version, tmp_path: Path) -> None:
        """A waiter of ours waits until its sync is done, and says then what to do; nobody is held up."""
        newer = versions.newer(tmp_path, "launch/stamp")
        assert site.greet(newer) == HELLO
        with in_use(site.env):
            leader = site.start(newer, "run", "--lock", NEXT, "--", "greet")
            wait_for((site.env / ".envsync" / "stamp.draining").exists, "the leader")
            waiter = site.start(ours, "run", "--lock", NEXT, "--", "greet")
            assert waiter.stderr is not None
            assert "waiting for" in waiter.stderr.readline()
        assert site.end(leader)[:2] == (0, HOWDY)
        status, out, err = site.end(waiter)
        assert (status, out) == (125, "")
        assert UPGRADE in err

    def test_who_waits_for_us_goes_on(self, site: Site, ours: Version, tmp_path: Path) -> None:
        """A newer one that waits for a sync of ours makes the environment its own, and keeps it."""
        newer = versions.newer(tmp_path, "launch/stamp", "transaction/journal")
        assert site.greet(ours) == HELLO
        with in_use(site.env):
            leader = site.start(ours, "run", "--lock", NEXT, "--", "greet")
            wait_for_phase(site.env, DRAINING)
            waiter = site.start(newer, "run", "--lock", NEXT, "--", "greet")
            assert waiter.stderr is not None
            assert "waiting for" in waiter.stderr.readline()
        assert site.end(leader)[:2] == (0, HOWDY)
        assert site.end(waiter)[:2] == (0, HOWDY)
        assert unverified(site.env) == []
