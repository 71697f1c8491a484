"""A password in a URL is in no file of environment and cache, and in nothing that is printed, whatever happens."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.contention.test_leaders import Process, start, wait_for
from tests.contention.test_many_processes import finish
from tests.unit.fetching.server import File, Server, serving
from tests.wheels import build_wheel, sha256_of

__all__ = ["start"]  # a fixture

SECRET = "hunter2"
Run = Callable[..., subprocess.CompletedProcess[str]]


def sweep(directories: Iterable[Path], *texts: str) -> list[str]:
    """Name the files below some directories that have the secret in them, or in their names, and texts that have it."""
    found = [text for text in texts if SECRET in text]
    for directory in directories:
        for parent, names, files in os.walk(directory):
            found += [f"{parent}/{name}" for name in names + files if SECRET in name]
            paths = [Path(parent, name) for name in files]
            found += [str(path) for path in paths if path.is_file() and SECRET.encode() in path.read_bytes()]
    return found


def with_secret(server: Server, path: str = "simple") -> str:
    return f"{server.url}/{path}".replace("//", f"//user:{SECRET}@", 1)


def served(server: Server, tmp_path: Path, *, secret: bool = False, **how: object) -> str:
    """Serve a wheel. Returns a line of requirements for it."""
    wheel = build_wheel(tmp_path, "greet", "1.0", {"greet.py": "", "greet.bin": random.Random(0).randbytes(60_000)})
    name = os.path.basename(wheel)
    server.files[f"/{name}"] = File(Path(wheel).read_bytes(), **how)  # type: ignore[arg-type]
    url = with_secret(server, name) if secret else f"{server.url}/{name}"
    return f"greet @ {url} --hash=sha256:{sha256_of(wheel)}\n"


@pytest.mark.parametrize("given", ["option", "word", "variable", "table"])
def test_while_others_wait(
    tmp_path: Path,
    nobodys_home: Path,
    start: Callable[..., Process],
    run_envsync: Run,
    monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:
    """One leads and is killed, one waits, one gives up, one takes over, and status is asked: it is nowhere."""
    with serving() as server:
        hold = threading.Event()
        (tmp_path / "requirements.txt").write_text(served(server, tmp_path, hold=hold))
        url = with_secret(server)
        if given == "variable":
            monkeypatch.setenv("ENVSYNC_INDEX_URL", url)
        if given == "table":
            (tmp_path / "pyproject.toml").write_text(f'[tool.envsync]\nindex-url = ["{url}"]\n')
        options = {"option": ["--index-url", url], "word": [f"--index-url={url}"]}.get(given, [])
        env = tmp_path / "env"
        command = ["--env", "env", *options]
        leader = start(*command, "--", "true")
        wait_for(server.began.is_set, "a download")
        waiter = start("-v", *command, "--", sys.executable, "-c", "pass", url)
        wait_for((env / ".envsync" / "waiting").is_dir, "a waiter")
        gave_up = run_envsync("sync", "--timeout", "1.5", *command)
        outputs = [run_envsync("status", "--env", "env", *more) for more in ([], ["--json"])]
        during = sweep([env], *(each.stdout + each.stderr for each in (gave_up, *outputs)))
        assert "waiting for pid" in gave_up.stderr
        assert len(json.loads(outputs[1].stdout)["waiters"]) == 1
        leader.send_signal(signal.SIGKILL)
        hold.set()
        code, out, err = finish(waiter)
        assert (code, out) == (0, "")
        assert "took over" in err
    events = (tmp_path / "events.jsonl").read_text()
    assert f"{url.partition('//')[0]}//127.0.0.1" in events  # the command's own word, without the secret
    after = run_envsync("sync", "--json", "-v", *command)
    assert (during, sweep([env, nobodys_home], err, events, after.stdout, after.stderr)) == ([], [])


def test_in_a_running_command(tmp_path: Path, start: Callable[..., Process], run_envsync: Run) -> None:
    """A command line is read from the system, too: of who runs in the environment, and of who holds its lock."""
    lock = str(Path(__file__).parent.parent.parent / "fixtures" / "requirements.txt")
    url = f"https://user:{SECRET}@host.invalid/"
    process = start("--lock", lock, "--env", "env", "--", "python", "-c", "print(1, flush=True); input()", url)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    said = [run_envsync("status", "--env", "env", *more) for more in ([], ["--json"])]
    (tmp_path / "requirements.txt").write_text("# other\n")
    said += [run_envsync("sync", "--env", "env", "--busy", "fail", "--lock", lock, "--group", "x")]
    (tmp_path / "pylock.toml").write_text(
        (Path(lock).parent / "pylock.next.toml").read_text().replace("wheels/", f"{Path(lock).parent}/wheels/")
    )
    said += [
        run_envsync("sync", "--env", "env", "--lock", "pylock.toml", *more)
        for more in (["--busy", "fail"], ["--timeout", "1"])
    ]
    assert [each.returncode for each in said[-2:]] == [124, 124]
    assert sum("host.invalid" in each.stdout + each.stderr for each in said) == 4
    assert sweep([tmp_path / "env"], *(each.stdout + each.stderr for each in said)) == []
    finish(process)


def test_in_the_lock_file(tmp_path: Path, nobodys_home: Path, run_envsync: Run) -> None:
    """A lock file may hold credentials: they are used, and what is installed does not say them."""
    with serving() as server:
        (tmp_path / "requirements.txt").write_text(served(server, tmp_path, secret=True, auth=("user", SECRET)))
        done = run_envsync("sync", "-v", "--json", "--env", "env", check=True)
    assert json.loads(done.stdout)["installed"] == ["greet==1.0"]
    (recorded,) = (tmp_path / "env").rglob("direct_url.json")
    assert json.loads(recorded.read_text())["url"] == f"{server.url}/greet-1.0-py3-none-any.whl"
    checked = run_envsync("check", "--env", "env", "--json", check=True)
    assert sweep([tmp_path / "env", nobodys_home], done.stdout, done.stderr, checked.stdout) == []


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302])
def test_a_server_that_refuses(tmp_path: Path, nobodys_home: Path, run_envsync: Run, status: int) -> None:
    """What an index or a file server answers ends in an error for all, which has no secret."""
    with serving() as server:
        headers = {"Location": with_secret(server, "elsewhere")} if status == 302 else {}
        server.files["/simple/greet/"] = File(b"", statuses=[(status, headers)] * 20)
        (tmp_path / "pins.txt").write_text("greet==1.0\n")
        (tmp_path / "urls.txt").write_text(served(server, tmp_path, secret=True, statuses=[(status, headers)] * 20))
        tried = [
            run_envsync("sync", "--env", "env", "--lock", lock, "--index-url", with_secret(server), "--json")
            for lock in ("pins.txt", "urls.txt")
        ]
    assert [each.returncode for each in tried] == [125, 125]
    asked = run_envsync("status", "--env", "env", "--json")
    assert sweep([tmp_path / "env", nobodys_home], *(each.stdout + each.stderr for each in (*tried, asked))) == []


URL = f"https://user:{SECRET}@host.invalid/x"
WRONG: dict[str, tuple[list[str], dict[str, str]]] = {
    "a URL for a lock file": (["sync", "--lock", URL], {}),
    "a URL for an environment": (["sync", "--env", URL], {}),
    "a URL for a number": (["sync", "--timeout", URL], {}),
    "a URL for a choice": (["sync", "--busy", URL], {}),
    "a URL that is malformed": (["sync", "--index-url", f"https://user:{SECRET}/x@host.invalid:y/"], {}),
    "an option that is unknown": (["sync", f"--index={URL}"], {}),
    "an argument too much": (["sync", URL], {}),
    "a flag with a value": (["sync", f"--offline={URL}"], {}),
    "a command that is not there": (["run", "--", URL], {}),
    "a cache at a URL": (["sync", "--cache-dir", URL], {}),
    "a Python at a URL": (["sync", "--python", URL], {}),
    "a variable that is wrong": (["sync"], {"ENVSYNC_TIMEOUT": URL}),
    "another variable": (["sync"], {"ENVSYNC_LINK_MODE": URL}),
    "an events file at a URL": (["sync"], {"ENVSYNC_EVENTS": f"{URL}/none/x"}),
    "a proxy that is malformed": (
        ["sync", "--env", "other", "--lock", "urls.txt"],
        {"ALL_PROXY": f"x://user:{SECRET}@host.invalid:1"},
    ),
}


@pytest.mark.parametrize(("arguments", "variables"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_meant(
    tmp_path: Path, nobodys_home: Path, run_envsync: Run, arguments: list[str], variables: dict[str, str]
) -> None:
    """A message that repeats what was given leaves the secret out."""
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    (tmp_path / "urls.txt").write_text("greet @ https://host.invalid/greet-1.0-py3-none-any.whl\n")
    said = [run_envsync(*arguments[:1], *more, *arguments[1:], env=variables) for more in ([], ["--quiet"])]
    assert sweep([], *(each.stdout + each.stderr for each in said)) == []


LOCKS = {
    "a marker": ("requirements.txt", f"greet @ {URL} ; {URL}\n"),
    "a version": ("requirements.txt", f"greet=={URL}\n"),
    "an included file": ("requirements.txt", f"-r {URL}\n"),
    "an unknown option": ("requirements.txt", f"--index {URL}\n"),
    "a name in pylock.toml": ("pylock.toml", f'[[packages]]\nname = "{URL}"\n'),
    "a marker in pylock.toml": ("pylock.toml", f'[[packages]]\nname = "greet"\nmarker = "{URL}"\n'),
    "a Python in pylock.toml": ("pylock.toml", f'requires-python = "{URL}"\npackages = []\n'),
}


@pytest.mark.parametrize(("name", "text"), LOCKS.values(), ids=LOCKS.keys())
def test_a_lock_file_that_is_wrong(tmp_path: Path, name: str, text: str) -> None:
    """What a lock file has in the wrong place is not shown, not even in the traceback of a program."""
    head = 'lock-version = "1.0"\ncreated-by = "x"\n' if name.endswith(".toml") else ""
    (tmp_path / name).write_text(head + text)
    words = [sys.executable, "-c", f"import envsync; envsync.sync({name!r}, env='env')"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "envsync.errors.LockFileError" in done.stderr
    assert sweep([tmp_path / "env"], done.stdout, done.stderr) == []


PROGRAM = """\
import logging
logging.basicConfig(level=logging.DEBUG)
import envsync
print(envsync.sync("pins.txt", env="env"))
"""


def test_in_the_library(tmp_path: Path) -> None:
    """Nor is it in the traceback of a program that uses the library and keeps a log of everything."""
    with serving() as server:
        server.files["/simple/greet/"] = File(b"", auth=("user", "another"))
        (tmp_path / "pins.txt").write_text("greet==1.0\n")
        variables = {**os.environ, "ENVSYNC_INDEX_URL": with_secret(server)}
        words = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr
    assert "GET http://127.0.0.1" in done.stderr
    assert sweep([tmp_path / "env"], done.stdout, done.stderr) == []
