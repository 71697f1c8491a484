"""Sync and run under wine: one sync, current at once, and the command as it would be without envsync."""

from __future__ import annotations

import json
import re

import pytest

from tests.wine.windows import NO_SERVER, SECONDS, Windows, finished, said, was_not_started, wrong_with

FIRST = {"almanac_days": "1.0", "almanac_words": "1.0", "greet": "1.0", "shout": "1.0", "tally": "1.0"}
NEXT = {"almanac_days": "1.0", "greet": "2.0", "shout": "1.0", "tally": "1.0"}
BURST, BURSTS = 20, 50
TELL = "import json, sys; print(json.dumps(sys.argv[1:]))"
WORDS = [
    "two words",
    'a "quote"',
    "",
    "back\\slash",
    "end\\",
    'both\\"',
    "tab\there",
    "%PATH%",
    "caret^&|<>",
    "blank end ",
    "äöü€",
]
BY_THE_LIBRARY = """
import envsync, pathlib
here = pathlib.Path.cwd()
done = envsync.sync(here / "pylock.toml", env=here / "envs" / "third", cache_dir=here / "cache")
print(done.outcome, done.env)
"""
TELLS_IMPORTS = """
import sys
from envsync.__main__ import main
sys.addaudithook(lambda event, args: event == "import" and print("+", args[0], file=sys.stderr))
main(sys.argv[1:])
"""
CONTROL_C = """
import ctypes, signal, subprocess, sys
kernel32 = ctypes.WinDLL("kernel32")
kernel32.FreeConsole()
assert kernel32.AllocConsole()
words = [sys.executable, "-m", "envsync", "run", "--", sys.executable, "-c", sys.argv[1]]
process = subprocess.Popen(words, stdout=subprocess.PIPE)
assert process.stdout.readline().strip() == b"in"
signal.signal(signal.SIGINT, signal.SIG_IGN)
assert kernel32.GenerateConsoleCtrlEvent(0, 0)
print(process.stdout.read().decode().strip(), process.wait())
"""
"""The command is the Python that the environment was made of: a python.exe of an environment may end on Ctrl-C."""
CATCHES = """
import sys, time
print("in", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("caught", flush=True)
    sys.exit(5)
"""


def test_a_sync_makes_the_environment_of_the_lock_file(windows: Windows) -> None:
    """Every file of every distribution is there, with the hash that its RECORD says, and nothing else is."""
    outcome = windows.sync()
    assert (outcome["outcome"], len(outcome["installed"])) == ("synced", 5)
    assert wrong_with(windows, FIRST) == []
    assert windows.run("check").returncode == 0


def test_a_second_sync_finds_it_current(windows: Windows) -> None:
    """Nothing is installed once more, and no sync is counted."""
    windows.sync()
    assert windows.sync()["outcome"] == "current"
    assert windows.happened("synced") == 1


def test_a_current_environment_is_run_in_without_a_sync(windows: Windows) -> None:
    """The fast lane serves it: no module of those that sync is loaded, and the environment's Python runs."""
    windows.sync()
    done = windows.python("-c", TELLS_IMPORTS, "run", "--", "python", "-c", "import sys, shout; print(sys.prefix)")
    assert (done.returncode, done.stdout.strip().replace("\\", "/")) == (0, f"Z:{windows.environment}"), done.stderr
    assert "+ envsync.launch" in done.stderr
    assert "+ envsync.leading" not in done.stderr
    assert windows.happened("synced") == 1


def test_what_is_stale_is_synced_once(windows: Windows) -> None:
    """Another lock file changes the environment by one sync, and it is current for that one then."""
    windows.sync()
    for _ in range(2):
        done = windows.run("run", "--lock", "pylock.next.toml", "--", "python", "-c", "import greet.phrases")
        assert done.returncode == 0, done.stderr
    assert windows.happened("synced") == 2
    assert windows.happened("launched") == 2
    assert wrong_with(windows, NEXT) == []


def test_a_path_may_have_backslashes(windows: Windows) -> None:
    """As people write them there, and as `pathlib` does: in options, variables and files, relative or not."""
    backwards = str(windows.project).replace("/", "\\")
    assert windows.sync("--env", "envs\\first", "--lock", f"Z:{backwards}\\pylock.toml")["outcome"] == "synced"
    assert wrong_with(windows.at("envs/first"), FIRST) == []
    for path in ("envs\\second", f"Z:{backwards}\\envs\\second"):
        outcome = windows.sync(env={"ENVSYNC_ENV": path})["outcome"]
    assert outcome == "current"
    done = windows.python("-c", BY_THE_LIBRARY)
    assert done.stdout.split() == ["synced", f"Z:{windows.project}/envs/third"], done.stderr
    assert wrong_with(windows.at("envs/third"), FIRST) == []


def test_what_is_not_for_windows_says_so(windows: Windows) -> None:
    """What needs fork and exec cannot be imported, and names what there is instead."""
    done = windows.python("-c", "import envsync.integrations.multiprocessing")
    assert "ImportError: envsync.integrations.multiprocessing is for systems with fork and exec" in done.stderr
    assert "hold.popen" in done.stderr


@pytest.mark.parametrize("status", [0, 3, 255])
def test_the_status_is_the_commands(windows: Windows, status: int) -> None:
    """What the command ends with, `run` ends with."""
    windows.sync()
    assert windows.run("run", "--", "python", "-c", f"raise SystemExit({status})").returncode == status


def test_the_status_of_a_crash_is_the_commands(windows: Windows) -> None:
    """It is larger than others: that of Ctrl-C is 0xC000013A, of which wine tells other systems the last two digits."""
    windows.sync()
    tells = "import os; os._exit(0xC000013A - (1 << 32))"
    script = (
        "import subprocess, sys; words = [sys.executable, '-m', 'envsync', 'run', '--', 'python', '-c', sys.argv[1]]; "
        "print(hex(subprocess.run(words).returncode))"
    )
    done = windows.python("-c", script, tells)
    assert (done.stdout.strip(), done.stderr) == ("0xc000013a", "")


def test_arguments_reach_the_command_as_they_are(windows: Windows) -> None:
    """Blanks, quotes, backslashes, nothing at all: whatever the command line of Windows makes of them."""
    windows.sync()
    done = windows.run("run", "--", "python", "-c", TELL, *WORDS)
    assert json.loads(done.stdout) == WORDS, done.stderr


def test_streams_are_the_commands(windows: Windows) -> None:
    """It reads our stdin and writes to our stdout and stderr, and `run` says nothing of its own."""
    windows.sync()
    process = windows.start("run", "--", "python", "-c", "import sys; print(sys.stdin.read(), file=sys.stderr)")
    out, err = process.communicate("given", timeout=SECONDS)
    assert (process.returncode, out, err.strip()) == (0, "", "given")


def test_control_c_is_left_to_the_command(windows: Windows) -> None:
    """It gets it, ends as it likes, and `run` waits for that and returns its status.

    Ctrl-Break cannot be tried: wine has no process groups for consoles.
    """
    windows.sync()
    done = windows.python("-c", CONTROL_C, CATCHES)
    assert done.stdout.split() == ["caught", "5"], done.stdout + done.stderr


def test_a_burst_makes_one_sync(windows: Windows) -> None:
    """Twenty `run`s of a missing environment at once: all see the whole of it, and one has synced."""
    command = "import almanac.days, almanac.words, greet, shout; print('whole')"
    processes = [windows.start("run", "--", "python", "-c", command) for _ in range(BURST)]
    outcomes = [finished(process) for process in processes]
    assert [(each.returncode, each.stdout.strip()) for each in outcomes] == [(0, "whole")] * BURST, [
        each.stderr for each in outcomes if each.returncode
    ]
    assert windows.happened("synced") == 1
    assert windows.happened("launched") == BURST
    assert wrong_with(windows, FIRST) == []


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_fifty_bursts_make_one_sync_each(windows: Windows) -> None:
    """Twenty `run`s at once, fifty times, of two lock files by turns; what wine did not start is counted."""
    not_started: list[tuple[int, int, list[str]]] = []
    launched = 0
    for number in range(BURSTS):
        lock, version = (("pylock.toml", "1.0"), ("pylock.next.toml", "2.0"))[number % 2]
        script = "import greet, importlib.metadata as m; print(m.version('greet'))"
        processes = [windows.start("run", "--lock", lock, "--", "python", "-c", script) for _ in range(BURST)]
        outcomes = [finished(process) for process in processes]
        wines = [each for each in outcomes if was_not_started(each)]
        others = [(each.returncode, each.stdout.strip()) for each in outcomes if each not in wines]
        assert others == [(0, version)] * len(others), outcomes
        launched += BURST - sum(NO_SERVER in each.stderr for each in wines)
        assert (windows.happened("synced"), windows.happened("launched")) == (number + 1, launched), outcomes
        not_started += [(number, each.returncode, each.stderr.splitlines()[-2:]) for each in wines]
        print(number + 1, not_started, flush=True)
    assert len(not_started) <= BURSTS * BURST // 100, not_started


def check_a_shared_failure(windows: Windows) -> None:
    """Six that wait for the same, which cannot be had: one tries it, and the others end with its failure."""
    windows.sync()
    spoiled = windows.project / "pylock.spoiled.toml"
    text = (windows.project / "pylock.toml").read_text()
    spoiled.write_text(re.sub(r'(greet-1.0.*sha256 = ")[0-9a-f]+', rf"\g<1>{'0' * 64}", text))
    leader = windows.struck("pause:10", "sync", "--lock", "pylock.next.toml")
    said(leader, "paused before", aloud=True)
    waiters = [windows.start("run", "--lock", spoiled.name, "--", "python", "-c", "") for _ in range(6)]
    for waiter in waiters:
        said(waiter, "waiting for", aloud=True)
    leader.kill()
    outcomes = [finished(waiter) for waiter in waiters]
    assert [each.returncode for each in outcomes] == [125] * 6, [each.stderr for each in outcomes]
    assert all("greet-1.0" in each.stderr for each in outcomes)
    assert windows.happened("failed") == 1


def test_a_failure_is_shared(windows: Windows) -> None:
    """Who waits knows that it is one of now: by the boot, which Windows names in its own way."""
    check_a_shared_failure(windows)


def test_two_lock_files_in_one_environment(windows: Windows) -> None:
    """Both are served, one after the other, and each command sees its own packages."""
    script = "import greet, importlib.metadata as m; print(m.version('greet'))"
    processes = [
        (version, windows.start("run", "--lock", lock, "--", "python", "-c", script))
        for _ in range(4)
        for lock, version in (("pylock.toml", "1.0"), ("pylock.next.toml", "2.0"))
    ]
    for version, process in processes:
        done = finished(process)
        assert (done.returncode, done.stdout.strip()) == (0, version), done.stderr
    assert windows.happened("launched") == 8
