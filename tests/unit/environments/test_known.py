"""What is known of an environment: looked at without disturbing anybody."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from envsync.environments.known import Known
from envsync.environments.size import Size, measure
from envsync.launch import Environment
from tests import needs
from tests.environments import site_packages
from tests.unit.scene import holder

Looked = Callable[[], Known]


def test_one_that_is_current(environment: Path, looked: Looked) -> None:
    """By its stamp: what it was synced for, when it was made and used; and nothing keeps it."""
    used = time.time() - 40 * 86400
    os.utime(environment / ".envsync/in-use", (used, used))
    known = looked()
    assert (known.current, known.reason, known.kept, known.stranger) == (True, "", "", "")
    assert (known.lock, known.digest, known.path) == ("pylock.toml", environment.name, environment.as_posix())
    assert known.python.startswith("cpython 3.")
    assert known.used == used
    assert time.time() - known.made < 100


@needs.PROC
def test_looking_changes_no_time_and_takes_no_lock(environment: Path, looked: Looked) -> None:
    """A job may hold any of its locks; the time of the last use stays."""
    os.utime(environment / ".envsync/in-use", (1, 1))
    with holder(str(environment / ".lock")), holder(str(environment / ".envsync/in-use")):
        known = looked()
    assert known.used == 1
    assert len(known.commands) == 2


@needs.PROC
def test_who_runs_in_it(environment: Path, looked: Looked) -> None:
    """By pid and command, as `status` names them."""
    with holder(str(environment / ".envsync/in-use"), "shared") as command:
        known = looked()
    assert [each.pid for each in known.commands] == [command.pid]
    assert f"pid {command.pid}" in known.kept


def test_one_that_was_changed(environment: Path, looked: Looked) -> None:
    """Says what is against its stamp."""
    (site_packages(environment) / "new.py").touch()
    assert not looked().current
    (environment / ".envsync/stamp").unlink()
    assert looked().reason == "no sync of it has been completed"


def test_one_that_was_renamed(environment: Path, looked: Looked) -> None:
    """No request leads there, whatever its name says."""
    environment.rename(environment.with_name("f" * 32))
    known = looked()
    assert not known.current
    assert environment.as_posix() in known.reason


def test_what_is_none_of_ours(environment: Path, looked: Looked) -> None:
    """Without `.envsync`, or with nothing in it, or with that alone beside what others have."""
    (environment / ".envsync").rename(environment / "elsewhere")
    assert "does not look like" in looked().stranger
    (environment / ".envsync").symlink_to("elsewhere")
    assert "does not look like" in looked().stranger
    (environment / ".envsync").unlink()
    (environment / ".envsync").mkdir()
    assert "does not look like" in looked().stranger
    (environment / ".envsync/in-use").touch()
    assert looked().stranger == ""
    (environment / "pyvenv.cfg").unlink()
    assert "does not look like" in looked().stranger


def test_nothing_but_what_is_ours(environment: Path, looked: Looked) -> None:
    """As who was killed leaves it: a lock, or an empty directory. But not what a link leads to."""
    shutil.rmtree(environment)
    environment.mkdir()
    assert (looked().stranger, looked().kept) == ("", "")
    (environment / ".lock").touch()
    (environment / ".envsync").mkdir()
    assert (looked().stranger, looked().kept) == ("", "")
    (environment / ".envsync").rmdir()
    (environment / ".envsync").symlink_to("/usr")
    assert "does not look like" in looked().stranger


def test_a_first_sync_that_died(tmp_path: Path, looked: Looked) -> None:
    """What it leaves is ours, though there is no environment in it yet."""
    from envsync.waiting import directory

    directory.prepare(Environment(f"{tmp_path}/envs/{'b' * 32}"))
    known = looked()
    assert (known.stranger, known.kept, known.current) == ("", "", False)


def test_how_much_room_it_takes(tmp_path: Path) -> None:
    """A file with several names counts once, and is free if none of them is elsewhere."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "own").write_bytes(b"x" * 10_000)
    (tree / "below/both").write_bytes(b"x" * 20_000)
    os.link(tree / "below/both", tree / "both")
    (tree / "linked").write_bytes(b"x" * 40_000)
    os.link(tree / "linked", tmp_path / "elsewhere")
    (tree / "way").symlink_to("/usr")
    blocks = {name: os.lstat(tree / name).st_blocks * 512 for name in ("own", "both", "linked", "way")}
    free = blocks["own"] + blocks["both"] + blocks["way"]
    assert measure(str(tree)) == Size(5, free + blocks["linked"], free)
    assert measure(str(tmp_path / "none")) == Size()
