"""Environments and caches that cannot be written to: what needs no writing works, all else says what it lacks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.environments import FIXTURES, files, unverified
from tests.rooms.inside import output, read_only, words

LOCK, NEXT = FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"


def test_a_read_only_environment_that_is_current_runs(synced: Path) -> None:
    """Nothing has to be written to run a command in a current environment."""
    options = ["--lock", LOCK, "--env", synced / "env", "--cache-dir", synced / "cache"]
    for _ in range(2):
        done = read_only(synced / "env", words("run", *options, "--", "greet"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "HELLO, WORLD!\n", "")
    done = read_only(synced / "env", words("sync", *options, "--json"))
    assert json.loads(done.stdout)["outcome"] == "current"


def test_a_read_only_environment_that_is_stale_is_refused(synced: Path) -> None:
    """It says what it lacks, and why it cannot have it."""
    before = files(synced / "env")
    options = ["--lock", NEXT, "--env", synced / "env", "--cache-dir", synced / "cache"]
    for command in (["sync", *options], ["run", *options, "--", "greet"]):
        done = read_only(synced / "env", words(*command))
        assert done.returncode == 125
        assert "lacks greet==2.0" in done.stderr
        assert "Read-only file system" in done.stderr
    assert files(synced / "env") == before


def test_a_read_only_environment_whose_inputs_have_a_comment_more_is_current(synced: Path) -> None:
    """The stamp cannot be renewed, and vouches all the same for what counts; nothing has to be said."""
    wheel = FIXTURES / "wheels/tally-1.0-py3-none-any.whl"
    pin = f"tally==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
    lock, more = synced / "requirements.txt", synced / "more.txt"
    lock.write_text(f"--no-index\n--find-links {wheel.parent}\n-r more.txt\n")
    more.write_text(pin)
    options = ["--lock", lock, "--env", synced / "env", "--cache-dir", synced / "cache"]
    output(words("sync", *options))
    for text, expected in ((f"# why\n{pin}", ""), (f"{pin}# why\n", ""), ("", "has, though nobody asks for it")):
        more.write_text(text)
        done = read_only(synced / "env", words("run", *options, "--allow-empty", "--", "true"))
        assert done.returncode == (125 if expected else 0)
        assert expected in done.stderr if expected else done.stderr == ""


def test_a_read_only_environment_without_a_stamp_says_what_that_is_worth(synced: Path) -> None:
    """The right versions are there, and nobody vouches for their files."""
    (synced / "env" / ".envsync" / "stamp").unlink()
    options = ["--lock", LOCK, "--env", synced / "env", "--cache-dir", synced / "cache"]
    done = read_only(synced / "env", words("run", *options, "--", "greet"))
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    assert "unverified" in done.stderr


def test_a_read_only_cache_with_everything_in_it_will_do(synced: Path) -> None:
    """A cache that an administrator filled is used as it is."""
    output(words("sync", "--lock", NEXT, "--env", synced / "other", "--cache-dir", synced / "cache"))
    before = {path: path.lstat().st_mtime_ns for path in (synced / "cache").rglob("*")}
    for lock, greeting in ((NEXT, "HOWDY, PARTNER!\n"), (LOCK, "HELLO, WORLD!\n")):
        options = ["--lock", lock, "--env", synced / "env", "--cache-dir", synced / "cache", "-q"]
        done = read_only(synced / "cache", words("run", *options, "--", "greet"))
        assert (done.returncode, done.stdout) == (0, greeting), done.stderr
        assert unverified(synced / "env") == []
    assert {path: path.lstat().st_mtime_ns for path in (synced / "cache").rglob("*")} == before


@pytest.mark.parametrize("made", [True, False], ids=["a cache", "an empty directory"])
def test_a_read_only_cache_with_nothing_in_it_is_named(synced: Path, made: bool) -> None:
    """What it lacks cannot be put there, and is put elsewhere: the environment is synced all the same."""
    empty = synced / "empty"
    empty.mkdir()
    if made:
        for name in ("wheels", "tmp", "locks"):
            (empty / "v1" / name).mkdir(parents=True)
    options = ["--lock", NEXT, "--env", synced / "env", "--cache-dir", empty]
    done = read_only(empty, words("run", *options, "--", "greet"))
    assert (done.returncode, done.stdout) == (0, "HOWDY, PARTNER!\n"), done.stderr
    assert f"`{empty}` cannot be written" in done.stderr
    assert unverified(synced / "env") == []
    assert [path.name for path in empty.rglob("*") if not path.is_dir()] == []


def test_a_read_only_environment_is_not_removed(synced: Path) -> None:
    """Nor made not current by the try."""
    template = synced / "envs/{digest}"
    options = ["--lock", LOCK, "--env", template, "--cache-dir", synced / "cache"]
    assert output(words("sync", *options)).returncode == 0
    done = read_only(synced / "envs", words("env", "prune", template, "--yes", "--verbose"))
    assert done.returncode == 0
    assert f"`{synced / 'envs'}` cannot be written to" in done.stderr
    (environment,) = (path for path in (synced / "envs").iterdir() if not path.name.startswith("."))
    done = read_only(environment, words("env", "remove", environment))
    assert done.returncode == 1
    assert f"something is mounted on `{environment}`" in done.stderr
    done = output(words("sync", *options, "--json"))
    assert json.loads(done.stdout)["outcome"] == "current"
