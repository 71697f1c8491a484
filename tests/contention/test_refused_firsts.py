"""A first sync that comes to nothing leaves nothing: real processes, one or fifty, refused, interrupted or killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.system import records
from tests.conftest import envsync_command
from tests.contention.test_many_processes import Barrier, finish
from tests.environments import FIXTURES, unverified
from tests.unit.fetching.server import File, serving
from tests.wheels import build_wheel, sha256_of

LOCK = str(FIXTURES / "pylock.toml")
UNPINNED = "greet>=1\n"
UV = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)]))
SECONDS = 60
"""A limit on what takes milliseconds, so that a failure ends."""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def unfit(tmp_path: Path) -> str:
    """A lock file none of whose wheels fits any Python that there is."""
    made = Path(build_wheel(tmp_path))
    path = made.rename(made.with_name("demo-1.0-cp27-none-any.whl"))
    lock = tmp_path / "pylock.toml"
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "tests"\n[[packages]]\nname = "demo"\nversion = "1.0"\n'
        f'wheels = [{{ path = "{path}", hashes = {{ sha256 = "{sha256_of(path)}" }} }}]\n'
    )
    return str(lock)


def slow_lock(tmp_path: Path, url: str, wheel: Path) -> str:
    """Write a lock file for one wheel on a server."""
    lock = tmp_path / "slow.txt"
    lock.write_text(f"demo @ {url}/{wheel.name} --hash=sha256:{sha256_of(wheel)}\n")
    return str(lock)


def leading(env: Path, pids: set[int]) -> int | None:
    """Return which of some processes has said that it leads; None as long as none has."""
    try:
        pid = records.load(str(env / ".envsync/progress.json"))["pid"]
    except KeyError:
        return None  # between two leaders
    return pid if pid in pids else None


def until_seen(look: Callable[[], int | None]) -> int:
    """Look again and again until there is something to be seen."""
    until = time.monotonic() + SECONDS
    while (seen := look()) is None:
        assert time.monotonic() < until, "nobody leads"
        time.sleep(0.005)  # the server is a thread of this process, and needs the time
    return seen


@pytest.mark.parametrize("template", ["env", "envs/deep/{digest}"])
def test_fifty_at_once_are_one_attempt(tmp_path: Path, unfit: str, template: str) -> None:
    """One attempt, fifty errors that are equal but for who says it, and nothing is left, nor what was made above."""
    barrier = Barrier()
    log = tmp_path / "events.jsonl"
    command = ["run", "--lock", unfit, "--env", template, "--", "true"]
    processes = [barrier.start(*command, cwd=tmp_path, env={"ENVSYNC_EVENTS": str(log)}) for _ in range(50)]
    barrier.lift()
    outcomes: Counter[tuple[int, str]] = Counter()
    for process in processes:
        status, _, err = finish(process)
        (said,) = re.findall("^envsync: error: (.*)$", err, re.MULTILINE)
        outcomes[status, said] += 1
    failed = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in failed] == ["failed"]
    ((status, own),) = [outcome for outcome, times in outcomes.items() if times == 1]
    shared = f"{own} (the sync by pid {failed[0]['pid']} on {os.uname().nodename}, which this process waited for)"
    assert outcomes == {(125, own): 1, (125, shared): 49}
    assert not (tmp_path / template.partition("/")[0]).exists()


def test_refused_again_and_again_by_many(tmp_path: Path, unfit: str) -> None:
    """Who comes while a directory is being removed makes it anew: each fails by itself, and nothing ever stays."""
    script = 'for _ in 1 2 3 4 5; do "$@" || test $? = 125 || exit 1; done'
    words = ["sh", "-c", script, "sh", *envsync_command(), "sync", "--lock", unfit, "--env", "env"]
    loops = [subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [finish(process) for process in loops]
    assert [status for status, _, _ in said] == [0] * 4
    assert {"no wheel" in line for _, _, err in said for line in err.splitlines() if "error:" in line} == {True}
    assert not (tmp_path / "env").exists()


def test_another_request_is_served(tmp_path: Path, unfit: str) -> None:
    """Among many that are refused, those that ask for something else get it, and the environment stays whole."""
    barrier = Barrier()
    refused = [barrier.start("sync", "--lock", unfit, "--env", "env", cwd=tmp_path) for _ in range(6)]
    served = [barrier.start("run", "--lock", LOCK, "--env", "env", "--", "greet", cwd=tmp_path) for _ in range(6)]
    barrier.lift()
    assert [finish(process)[0] for process in refused] == [125] * 6
    assert [finish(process)[:2] for process in served] == [(0, "HELLO, WORLD!\n")] * 6
    assert unverified(tmp_path / "env") == []
    assert not (tmp_path / "env/.envsync/bare").exists()


def test_a_directory_of_the_user_stays(tmp_path: Path, unfit: str, run_envsync: Run) -> None:
    """Empty as it was made."""
    (tmp_path / "env").mkdir()
    assert run_envsync("sync", "--lock", unfit, "--env", "env").returncode == 125
    assert os.listdir(tmp_path / "env") == []


def test_an_environment_of_others_stays(tmp_path: Path, unfit: str, run_envsync: Run) -> None:
    """What was a virtual environment before is one still."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=tmp_path, check=True)
    assert run_envsync("sync", "--lock", unfit, "--env", "env").returncode == 125
    subprocess.run([tmp_path / "env/bin/python", "-c", ""], check=True)


def test_half_an_environment_goes(tmp_path: Path, run_envsync: Run) -> None:
    """`venv` refuses a path that is not UTF-8 when it has made half of it."""
    where = os.fsencode(tmp_path) + b"/b\xff"
    try:
        os.mkdir(where)
    except OSError:
        pytest.skip("this filesystem has no such names")
    done = run_envsync("sync", "--lock", LOCK, "--env", "env", cwd=os.fsdecode(where))
    assert done.returncode == 125
    assert os.listdir(where) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_first_sync_leaves_nothing(tmp_path: Path, run_envsync: Run, number: signal.Signals) -> None:
    """Ctrl-C and scancel while it downloads: the directory goes, and the next sync takes over from nobody."""
    wheel = Path(build_wheel(tmp_path, files={"demo/data": os.urandom(100_000)}))
    with serving() as server:
        file = server.files[f"/{wheel.name}"] = File(wheel.read_bytes(), hold=threading.Event())
        words = ["sync", "-v", "--lock", slow_lock(tmp_path, server.url, wheel), "--env", "env"]
        leader = subprocess.Popen([*envsync_command(), *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
        assert server.began.wait(SECONDS)
        assert (tmp_path / "env").exists()
        leader.send_signal(number)
        assert leader.wait(SECONDS) == -number
        assert not (tmp_path / "env").exists()
        assert file.hold is not None
        file.hold.set()
        done = run_envsync(*words, check=True)
    assert not re.search("took over|dead|died|without a word", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_leader_leaves_word(tmp_path: Path, run_envsync: Run, number: signal.Signals) -> None:
    """In an environment that stays, `status` says that it was interrupted, not that it died; nothing is left over."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    wheel = Path(build_wheel(tmp_path, files={"demo/data": os.urandom(100_000)}))
    with serving() as server:
        file = server.files[f"/{wheel.name}"] = File(wheel.read_bytes(), hold=threading.Event())
        words = ["sync", "-v", "--lock", slow_lock(tmp_path, server.url, wheel), "--env", "env"]
        leader = subprocess.Popen([*envsync_command(), *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
        assert server.began.wait(SECONDS)
        leader.send_signal(number)
        assert leader.wait(SECONDS) == -number
        status = json.loads(run_envsync("status", "--env", "env", "--json").stdout)
        assert status["leftovers"] == []
        assert status["failure"]["kind"] == "interrupted"
        assert status["failure"]["message"].startswith("was interrupted while ")
        assert file.hold is not None
        file.hold.set()
        done = run_envsync(*words, check=True)
    assert not re.search("took over|dead|died|without a word", done.stderr)


def test_interrupted_leaders_are_no_deaths(tmp_path: Path) -> None:
    """Whoever is cancelled says nothing about the next: after four of them in a row the fifth goes on."""
    wheel = Path(build_wheel(tmp_path, files={"demo/data": os.urandom(100_000)}))
    with serving() as server:
        file = server.files[f"/{wheel.name}"] = File(wheel.read_bytes(), hold=threading.Event())
        words = ["sync", "--lock", slow_lock(tmp_path, server.url, wheel), "--env", "env"]
        barrier = Barrier()
        waiting = {process.pid: process for process in (barrier.start(*words, cwd=tmp_path) for _ in range(5))}
        barrier.lift()
        for _ in range(4):
            assert server.began.wait(SECONDS)
            server.began.clear()
            pid = until_seen(lambda: leading(tmp_path / "env", set(waiting)))
            leader = waiting.pop(pid)
            leader.send_signal(signal.SIGTERM)
            assert finish(leader)[0] == -signal.SIGTERM
        assert file.hold is not None
        file.hold.set()
        (last,) = waiting.values()
        status, _, err = finish(last)
    assert status == 0, err
    assert "which was interrupted while" in err


def test_the_fifth_of_those_that_waited_leaves_nothing(tmp_path: Path) -> None:
    """If all are interrupted, the last one takes the directory along."""
    wheel = Path(build_wheel(tmp_path, files={"demo/data": os.urandom(100_000)}))
    with serving() as server:
        hold = threading.Event()
        server.files[f"/{wheel.name}"] = File(wheel.read_bytes(), hold=hold)
        words = ["sync", "--lock", slow_lock(tmp_path, server.url, wheel), "--env", "env"]
        barrier = Barrier()
        processes = [barrier.start(*words, cwd=tmp_path) for _ in range(5)]
        barrier.lift()
        assert server.began.wait(SECONDS)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        assert [finish(process)[0] for process in processes] == [-signal.SIGTERM] * 5
        hold.set()
    assert not (tmp_path / "env").exists()


@pytest.mark.skipif(UV is None, reason="uv is neither beside this Python nor on PATH")
@pytest.mark.parametrize("command", ["sync", "venv", "run"])
def test_uv_works_where_a_sync_was_refused(tmp_path: Path, run_envsync: Run, command: str) -> None:
    """A project whose first sync was refused is one that uv takes, as if nothing had been tried."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.9"\n')
    (tmp_path / "requirements.txt").write_text(UNPINNED)
    assert run_envsync("sync").returncode == 125
    words = [str(UV), command, "--offline", "--no-config", "--python", sys.executable]
    words += ["python", "-c", ""] if command == "run" else []
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [("check", "--env", "env"), ("status", "--env", "env"), ("sync", "--dry-run", "--lock", LOCK, "--env", "env")],
)
def test_looking_makes_nothing(tmp_path: Path, run_envsync: Run, words: tuple[str, ...]) -> None:
    """Where there is no environment, there is none after a look at it."""
    run_envsync(*words)
    assert os.listdir(tmp_path) == []


def test_doctor_makes_nothing(tmp_path: Path, run_envsync: Run) -> None:
    """Nor does `doctor`, though it tries what the filesystem can."""
    run_envsync("doctor", "--env", "a/env", check=True)
    assert os.listdir(tmp_path) == []
