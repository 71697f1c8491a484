"""Where commands are not seen: what must not shut an environment for ever, and what the other commands say there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.library.status import look
from tests.conftest import ROOT
from tests.environments import FIXTURES, leftovers, unverified
from tests.odd.test_lost_locks import start, the_environment, wait_until_stopped

LOCK = str(FIXTURES / "pylock.toml")


def run(directory: Path, *arguments: str, **faults: object) -> tuple[int, str, str]:
    """Run envsync where there is no flock."""
    spec = json.dumps({"below": str(directory), "flock": "ENOSYS", **faults})
    done = subprocess.run(
        [sys.executable, "-m", "tests.odd.faults", spec, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def sync(directory: Path, *options: str, **faults: object) -> tuple[int, str]:
    status, _, err = run(directory, "sync", "--lock", LOCK, "--env", ".venvs/{digest}", *options, **faults)
    return status, err


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A leader that was stopped in the midst of its first commit."""
    with start(tmp_path, lease_seconds=3600, stop_after="site-packages/greet", log=f"{tmp_path}/renames") as process:
        wait_until_stopped(process)
        yield process
        process.kill()


@pytest.mark.parametrize("flock", [{"flock": "lie"}, {"flock": "ENOSYS"}, {"flock": "", "flock_sh": "ENOLCK"}])
def test_linked_directories(tmp_path: Path, flock: dict[str, str]) -> None:
    """The cache is told of an environment before its first commit; nobody has run in it for that."""
    assert sync(tmp_path, "--link-mode", "symlink", **flock)[0] == 0
    assert unverified(the_environment(tmp_path)) == []


@pytest.mark.parametrize("flock", [{"flock": "ENOSYS"}, {"flock": "", "flock_sh": "ENOLCK"}])
def test_a_refusal_leaves_nothing(tmp_path: Path, flock: dict[str, str]) -> None:
    """Where an environment of that name cannot be served for want of locks, there is none afterwards."""
    status, _, err = run(tmp_path, "sync", "--lock", LOCK, "--env", "a/env", **flock)
    assert status == 125
    assert "has no lock that tells" in err
    assert not (tmp_path / "a").exists()


def test_a_check_in_the_midst_of_a_commit(tmp_path: Path, stopped: subprocess.Popen[str]) -> None:
    """It waits for the leader, says what a dead one has left, and is in nobody's way."""
    env = the_environment(tmp_path)
    check = ("check", "--env", str(env))
    status, _, err = run(tmp_path, *check, "--timeout", "0.5")
    assert (status, "is being changed" in err) == (124, True), err
    stopped.kill()
    stopped.communicate()
    assert look(Environment(str(env)), None).leader is None
    status, out, err = run(tmp_path, *check)
    assert (status, "left over: `.envsync/journal`" in out) == (1, True), out + err
    status, err = sync(tmp_path)
    assert status == 0, err
    assert unverified(env) == []
    assert leftovers(env) == []
    assert run(tmp_path, *check)[0] == 0


def test_a_broken_environment_is_not_current(tmp_path: Path) -> None:
    """One whose interpreter is gone is refused, since commands may run in it; an operator may have it repaired."""
    assert sync(tmp_path)[0] == 0
    env = the_environment(tmp_path)
    (env / "bin" / "python").unlink()
    status, err = sync(tmp_path)
    assert (status, "commands may run in it" in err) == (125, True), err
    status, err = sync(tmp_path, "--busy", "ignore")
    assert status == 0, err
    assert run(tmp_path, "run", "--lock", LOCK, "--env", ".venvs/{digest}", "--", "greet")[:2] == (0, "HELLO, WORLD!\n")


def test_what_a_leader_left_that_was_killed_at_its_end(tmp_path: Path) -> None:
    """The environment is current, and the next sync tidies up."""
    with start(tmp_path, lease_seconds=3600, stop_after="/.envsync/stamp", log=f"{tmp_path}/renames") as leader:
        wait_until_stopped(leader)
        leader.kill()
    env = the_environment(tmp_path)
    assert {"stamp", "lease", "progress.json"} <= set(leftovers(env)) | set(os.listdir(env / ".envsync"))
    status, err = sync(tmp_path)
    assert status == 0, err
    assert leftovers(env) == []
    assert run(tmp_path, "check", "--env", str(env))[0] == 0


def test_a_leader_is_seen_without_shared_locks(tmp_path: Path) -> None:
    """Where only exclusive locks work, they tell."""
    faults = {"flock": "", "flock_sh": "ENOLCK"}
    with start(tmp_path, stop_after="site-packages/greet", log=f"{tmp_path}/renames", **faults) as leader:
        wait_until_stopped(leader)
        status = ("status", "--env", str(the_environment(tmp_path)), "--json")
        stopped = json.loads(run(tmp_path, *status, **faults)[1])["leader"]
        leader.kill()
    assert stopped is not None
    assert stopped["pid"] == leader.pid
    assert json.loads(run(tmp_path, *status, **faults)[1])["leader"] is None


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"flock": "lie"}, "has no locks"),
        ({"flock": "ENOSYS"}, "has no locks"),
        ({"flock": "", "mount": ["nfs", "nolock"]}, "on its mount (nfs, nolock) flock stays within this node"),
        ({"flock": "", "mount": ["fuse.sshfs", ""]}, "on its mount (fuse.sshfs) flock stays within this node"),
    ],
)
def test_a_cache_whose_users_cannot_be_kept_out_is_not_cleaned(
    tmp_path: Path, fault: dict[str, object], why: str
) -> None:
    """Neither by `clean` nor by `prune`; one is told why and what to do. What removes nothing in use still works."""
    cache = ("--cache-dir", str(tmp_path / "cache"))
    assert sync(tmp_path, *cache, **fault)[0] == 0
    before = sorted((tmp_path / "cache" / "v1" / "wheels").iterdir())
    assert before
    for words in (["clean"], ["prune", "--older-than", "0"]):
        status, out, err = run(tmp_path, "cache", *words, *cache, **fault)
        assert (status, out) == (125, "")
        assert why in err
        assert f"`{tmp_path}/cache`" in err
        assert "hint: " in err
    for words in (["clean", "--dry-run"], ["prune", "--older-than", "0", "--dry-run"], ["size"], ["verify"]):
        status, out, err = run(tmp_path, "cache", *words, *cache, **fault)
        assert (status, f"{len(before)} wheels" in out, err) == (0, True, "")
    assert sorted((tmp_path / "cache" / "v1" / "wheels").iterdir()) == before


def test_doctor_says_that_flock_stays_within_the_node(tmp_path: Path) -> None:
    """Both of the environment and of the cache, and what follows for each."""
    cache = ("--cache-dir", str(tmp_path / "cache"))
    mount = {"flock": "", "mount": ["nfs", "nolock"]}
    status, out, err = run(tmp_path, "doctor", "--env", ".venv", "--json", *cache, **mount)
    found = {each["subject"]: each["text"] for each in json.loads(out)["findings"] if each["level"] != "fine"}
    assert (status, json.loads(out)["safe"]) == (1, False), err
    assert "flock stays within this node (nfs, nolock): environments are locked by a lease" in found["locks"]
    assert "(flock stays within this node: nfs, nolock): it is used, but not cleaned" in found["cache"]
