"""Sync, run and all else without what macOS lacks: one sync, a successor, no wait for oneself, and nothing left."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys

import pytest

from tests import darwin
from tests.contention.test_in_use import left_over
from tests.environments import unverified
from tests.mac.mac import Mac
from tests.wine.test_in_use import check_busy_fail
from tests.wine.test_killed import Rounds, check_kills
from tests.wine.test_runs import BURST, FIRST, NEXT, check_a_shared_failure
from tests.wine.test_uv import check_a_wait_for_uv, check_that_uv_waits
from tests.wine.windows import finished, said, wrong_with

NEXT_LOCK = ("--lock", "pylock.next.toml")
LINUX_ALONE = (
    "import os, sys; print(sorted({'sched_getaffinity', 'copy_file_range'} & {*dir(os)}), os.listdir('/proc'))"
)


def test_something_was_taken_away(mac: Mac) -> None:
    """Else nothing of this would say anything: neither from a process nor from its children."""
    done = finished(mac.open(sys.executable, "-c", LINUX_ALONE))
    assert done.stdout.split() == ["[]", "[]"], done.stderr
    mac.sync()
    assert mac.run("run", "--", "python", "-c", LINUX_ALONE).stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize(
    "options",
    [(), ("--link-mode", "copy"), ("--link-mode", "symlink"), ("--link-mode", "hardlink"), ("--compile-bytecode",)],
    ids=" ".join,
)
def test_every_way_to_install(mac: Mac, options: tuple[str, ...]) -> None:
    """The environment is that of the lock file, file by file, then that of another one, and is checked as right."""
    assert mac.sync(*options)["outcome"] == "synced"
    assert unverified(mac.environment) == []
    assert mac.sync(*options)["outcome"] == "current"
    assert mac.run("status", "--exit-code", *options).returncode == 0
    done = mac.run("run", *NEXT_LOCK, *options, "--", "python", "-c", "import greet.phrases, shout")
    assert done.returncode == 0, done.stderr
    assert unverified(mac.environment) == []
    assert "symlink" in options or wrong_with(mac, NEXT) == []  # its RECORDs name linked directories, too
    done = mac.run("check")
    assert done.returncode == 0, done.stderr
    assert left_over(mac.environment) == []


@pytest.mark.parametrize(
    "command",
    [
        ("doctor",),
        ("status",),
        ("check",),
        ("cache", "dir"),
        ("cache", "size"),
        ("cache", "verify"),
        ("cache", "clean"),
        ("env", "list", ".venvs/{digest}"),
    ],
    ids=" ".join,
)
def test_every_other_command(mac: Mac, command: tuple[str, ...]) -> None:
    """None of them needs what is not there."""
    mac.sync("--durable")
    done = mac.run(*command)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_a_burst_makes_one_sync(mac: Mac) -> None:
    """Twenty `run`s of a missing environment at once: all see the whole of it, and one has synced."""
    command = "import almanac.days, almanac.words, greet, shout; print('whole')"
    processes = [mac.start("run", "--", "python", "-c", command) for _ in range(BURST)]
    outcomes = [finished(process) for process in processes]
    assert [(each.returncode, each.stdout.strip()) for each in outcomes] == [(0, "whole")] * BURST, [
        each.stderr for each in outcomes if each.returncode
    ]
    assert mac.happened("synced") == 1
    assert mac.happened("launched") == BURST
    assert wrong_with(mac, FIRST) == []


@pytest.mark.parametrize("where", ["pause:10", "pause:3:commit"])
def test_a_killed_leader_has_one_successor(mac: Mac, where: str) -> None:
    """Four wait for a leader that gets SIGKILL in mid-sync, or in its commit: one of them takes over, for all."""
    mac.sync()
    leader = mac.struck(where, "sync", *NEXT_LOCK)
    said(leader, "paused before", aloud=True)
    waiters = [mac.start("run", *NEXT_LOCK, "--", "python", "-c", "import greet.phrases") for _ in range(4)]
    for waiter in waiters:
        said(waiter, "waiting for", aloud=True)
    leader.kill()
    assert [finished(waiter).returncode for waiter in waiters] == [0] * 4
    assert mac.happened("synced") + mac.happened("recovered") >= 2
    assert mac.happened("launched") == 4
    assert wrong_with(mac, NEXT) == []
    assert left_over(mac.environment) == []


def test_a_failure_is_shared(mac: Mac) -> None:
    """Who waits knows that it is one of now: by the boot, which sysctl(3) names."""
    check_a_shared_failure(mac)
    assert "kern.bootsessionuuid" in (mac.project / "calls").read_text()


def test_who_waits_is_told_for_whom(mac: Mac) -> None:
    """A leader says itself who it is, in its progress: without /proc, nobody else could."""
    mac.sync()
    leader = mac.struck("pause:10", "sync", *NEXT_LOCK)
    said(leader, "paused before", aloud=True)
    waiter = mac.start("sync", *NEXT_LOCK, "--timeout", "5")
    assert f"pid {leader.pid}" in said(waiter, "waiting for", aloud=True)
    assert finished(waiter).returncode == 124
    leader.kill()


def test_busy_fail_refuses_while_a_command_runs(mac: Mac) -> None:
    """As on Windows; neither can say who runs there."""
    check_busy_fail(mac)


@pytest.mark.parametrize("deep", [False, True], ids=["child", "grandchild"])
def test_a_wait_for_itself_is_refused(mac: Mac, deep: bool) -> None:
    """A command that syncs its own environment by a child that has not inherited the lock: ENVSYNC_IN_BY and ps(1) say
    so, at once. (With an empty /proc, ps(1) of Linux says nothing: then the session is asked.)"""
    mac.sync()
    sync = [sys.executable, darwin.__file__, "sync", *NEXT_LOCK, "--timeout", "60"]
    words = ["sh", "-c", '"$@"; exit $?', "sh", *sync] if deep else sync
    inner = f"import subprocess; print(subprocess.run({words!r}, close_fds=True).returncode, flush=True)"
    done = mac.run("run", "--", sys.executable, "-c", inner)
    assert done.stdout.split() == ["124"], done.stderr
    assert "waiting would be for itself" in done.stderr
    assert "gave up" not in done.stderr
    assert mac.sync(*NEXT_LOCK)["outcome"] == "synced"


def test_a_killed_sync_does_no_harm(mac: Mac) -> None:
    """SIGKILL, which nothing can help."""
    check_kills(mac)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_two_hundred_kills_do_no_harm(mac: Mac) -> None:
    """At random changes, and one in two within the commit."""
    chance = random.Random(0)
    mac.sync()
    rounds = Rounds(mac)
    for number in range(200):
        rounds.strike(f"kill:{chance.randint(1, 30)}:commit" if number % 2 else f"kill:{chance.randint(1, 120)}")
        print(number + 1, dict(rounds.counts), flush=True)
    assert rounds.counts["within the commit"] >= 40


def test_uv_waits_for_envsync(mac: Mac) -> None:
    """As on Windows."""
    check_that_uv_waits(mac)


def test_envsync_waits_for_uv(mac: Mac) -> None:
    """As on Windows."""
    check_a_wait_for_uv(mac)


def test_the_cache_is_shared_and_cleaned(mac: Mac) -> None:
    """Two environments from one cache, whose entries stay while they are linked to and go with them."""
    mac.sync()
    other = mac.project / "other"
    done = mac.run("sync", "--json", "--link-mode", "symlink", env={"ENVSYNC_ENV": str(other)})
    assert json.loads(done.stdout)["outcome"] == "synced"
    assert mac.run("cache", "verify").returncode == 0
    assert unverified(other) == []
    wheels = mac.project / "cache" / "v1" / "wheels"
    for left in (True, False):
        assert mac.run("cache", "clean").returncode == 0
        assert (os.listdir(wheels) != []) is left
        if left:
            assert unverified(other) == []
            shutil.rmtree(other)
