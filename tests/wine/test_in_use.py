"""The in-use lock by share modes: who changes an environment is alone in it, and a command outlives its parent."""

from __future__ import annotations

import pytest

from tests.wine.test_runs import FIRST, NEXT
from tests.wine.windows import HOLDS, Windows, finished, said, wrong_with

NEXT_LOCK = ("--lock", "pylock.next.toml")


def check_busy_fail(windows: Windows) -> None:
    """Nothing is changed and nobody is waited for; once the command has ended, the same sync does it."""
    windows.sync()
    command = windows.hold()
    refused = windows.run("sync", *NEXT_LOCK, "--busy", "fail")
    assert refused.returncode == 124, refused.stderr
    assert "commands are running in environment" in refused.stderr
    assert wrong_with(windows, FIRST) == []
    assert windows.sync()["outcome"] == "current"
    assert finished(command).stdout.split() == ["out"]
    assert windows.sync(*NEXT_LOCK, "--busy", "fail")["outcome"] == "synced"
    assert wrong_with(windows, NEXT) == []


def test_busy_fail_refuses_while_a_command_runs(windows: Windows) -> None:
    """By share modes, which an inherited handle keeps."""
    check_busy_fail(windows)


def test_busy_wait_waits_for_the_command_to_end(windows: Windows) -> None:
    """It says so, changes nothing meanwhile, and syncs when the command has ended; who comes later gets in after it."""
    windows.sync()
    command = windows.hold()
    waiting = windows.start("run", *NEXT_LOCK, "--busy", "wait", "--", "python", "-c", "import greet.phrases")
    said(waiting, "waiting for commands that run in the environment to end", aloud=True)
    assert wrong_with(windows, FIRST) == []
    assert finished(command).stdout.split() == ["out"]
    assert finished(waiting).returncode == 0
    assert wrong_with(windows, NEXT) == []


def test_a_wait_for_commands_has_an_end(windows: Windows) -> None:
    """`--timeout` bounds it, and the environment is as it was: the next launch is served at once."""
    windows.sync()
    windows.hold()
    gave_up = windows.run("sync", *NEXT_LOCK, "--timeout", "1")
    assert gave_up.returncode == 124, gave_up.stderr
    assert windows.sync()["outcome"] == "current"
    assert wrong_with(windows, FIRST) == []


def test_a_command_keeps_the_environment_when_its_run_is_killed(windows: Windows) -> None:
    """The handle that it has inherited is the lock: TerminateProcess of the parent does not let go of it."""
    windows.sync()
    command = windows.hold()
    command.kill()
    command.wait()
    assert windows.run("sync", *NEXT_LOCK, "--busy", "fail").returncode == 124
    assert command.stdin is not None
    command.stdin.close()
    said(command, "out")
    assert windows.sync(*NEXT_LOCK)["outcome"] == "synced"
    assert wrong_with(windows, NEXT) == []


def test_many_commands_hold_it_at_once(windows: Windows) -> None:
    """Shared is shared: it is free when the last one has ended."""
    windows.sync()
    commands = [windows.start("run", "--", "python", "-c", HOLDS) for _ in range(3)]
    for command in commands:
        said(command, "in")
    for command in commands:
        assert windows.run("sync", *NEXT_LOCK, "--busy", "fail").returncode == 124
        assert finished(command).stdout.split() == ["out"]
    assert windows.sync(*NEXT_LOCK, "--busy", "fail")["outcome"] == "synced"


@pytest.mark.parametrize(("where", "recovered"), [("pause:10", 0), ("pause:3:commit", 1)])
def test_a_killed_leader_has_one_successor(windows: Windows, where: str, recovered: int) -> None:
    """Four wait for a leader that is killed in mid-sync: one of them takes over, and syncs for all.

    Where the commit was decided, it completes that.
    """
    windows.sync(*NEXT_LOCK)
    leader = windows.struck(where, "sync")
    said(leader, "paused before", aloud=True)
    waiting = [windows.start("run", "--", "python", "-c", "import almanac.words; print('whole')") for _ in range(4)]
    for each in waiting:
        said(each, "waiting for", aloud=True)
    leader.kill()
    for each in waiting:
        done = finished(each)
        assert (done.returncode, done.stdout.strip()) == (0, "whole"), done.stderr
    assert windows.happened("took_over") == 1
    assert windows.happened("recovered") == recovered
    assert windows.happened("synced") == 2 - recovered
    assert wrong_with(windows, FIRST) == []


def test_a_program_holds_its_environment(windows: Windows) -> None:
    """The block of `envsync.use` is a command, as long as it lasts."""
    windows.sync()
    script = f"import envsync\nwith envsync.use('pylock.toml', env='venv') as there:\n    {HOLDS}\nprint(there.python)"
    command = windows.open("wpy", "-c", script)
    said(command, "in")
    assert windows.run("sync", *NEXT_LOCK, "--busy", "fail").returncode == 124
    done = finished(command)
    assert (done.returncode, done.stdout.split()[0]) == (0, "out"), done.stderr
    assert windows.sync(*NEXT_LOCK, "--busy", "fail")["outcome"] == "synced"
