"""An environment is removed only if nobody needs it, and as a whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import envsync
from envsync.environments import removal
from envsync.environments.known import Known, Surroundings
from envsync.environments.removal import Removal
from envsync.environments.template import TRASH, Template
from envsync.errors import FilesystemError
from envsync.launch import Environment
from envsync.locks import flock, kind
from envsync.locks.flock import Flock
from envsync.store import trash
from envsync.system import atomic, mounts, native, processes
from envsync.waiting import bare, directory
from tests import needs
from tests.crash.harness import KILL, strike
from tests.environments import FIXTURES, unverified
from tests.unit.scene import holder

Removed = Callable[[], Removal]
Looked = Callable[[], Known]
LOCK = str(FIXTURES / "pylock.toml")
OLD = time.time() - 40 * 86400


def entries(environment: Path) -> list[str]:
    return sorted(os.listdir(environment.parent))


def test_one_that_nobody_needs(environment: Path, removed: Removed) -> None:
    """It is gone, with all that was in it, and what that took is told."""
    done = removed()
    assert (done.kept, done.left) == ("", "")
    assert done.size.files > 40
    assert 0 < done.size.free < done.size.bytes
    assert entries(environment) == []


def test_what_other_clients_may_still_find(
    environment: Path, removed: Removed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the old name, for a while: nobody can enter, and the environment lock is held until there is nothing else."""
    seen: list[tuple[str, set[str], bool]] = []
    remove_tree = trash.remove_tree

    def look_and_remove(path: str) -> None:
        (aside,) = environment.parent.glob(f"{TRASH}*")
        is_held = flock.acquire_nowait(f"{aside}/.lock", shared=False, create=False) is None
        seen.append((os.path.basename(path), set(os.listdir(aside)), is_held))
        remove_tree(path)

    monkeypatch.setattr(trash, "remove_tree", look_and_remove)
    assert removed().kept == ""
    assert seen[0][0] == ".envsync"
    assert all(is_held for _, _, is_held in seen)
    assert seen[-1][1] == {".lock"}
    assert entries(environment) == []


@needs.PROC
@pytest.mark.parametrize("name", [".lock", ".envsync/in-use"])
def test_one_whose_lock_is_held(environment: Path, looked: Looked, name: str) -> None:
    """By a sync, uv, or a command: it stays as it was, and who that is is said."""
    known = looked()
    os.utime(environment / ".envsync/in-use", (OLD, OLD))
    with holder(str(environment / name)) as process:
        done = removal.remove(known, Surroundings.here(), time.monotonic())
    assert done is not None
    assert f"pid {process.pid}" in done.kept
    assert (environment / ".envsync/in-use").stat().st_mtime == OLD
    assert envsync.sync(LOCK, env=str(environment.parent / "{digest}")).outcome == "current"


@pytest.mark.parametrize("name", [".lock", ".envsync/in-use"])
def test_one_whose_lock_is_held_where_nobody_is_named(
    environment: Path, looked: Looked, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where there is no /proc it stays all the same, and nobody is looked for on other hosts."""
    monkeypatch.setattr(processes, "read_proc", lambda _: "")
    known = looked()
    with holder(str(environment / name)):
        done = removal.remove(known, Surroundings.here(), time.monotonic())
    assert done is not None
    assert done.kept.endswith("a process that this system does not name")


@needs.PROC
def test_one_that_uv_waits_for(environment: Path, looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have the lock of a directory that is gone, and install into nothing."""
    import fcntl

    known = looked()
    path = environment / ".lock"
    code = f"import fcntl; f = open({str(path)!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX)"
    held = os.open(path, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with subprocess.Popen([sys.executable, "-c", code]) as waiter:
        while not processes.is_waited_for(str(path)):
            assert waiter.poll() is None
            time.sleep(0.01)
        # We get it instead of whoever waits: as if the lock had been free for us, and they had come just then
        monkeypatch.setattr(removal, "_lead", lambda *_: Flock(str(path), held, shared=False))
        monkeypatch.setattr(flock, "grants_twice", lambda _: False)
        done = removal.remove(known, Surroundings.here(), 0.0)
        assert done is not None
        assert done.kept == "somebody waits for it"
    assert environment.is_dir()


def test_waiting_for_a_sync(environment: Path, looked: Looked) -> None:
    """Up to a time that is given, and then it goes."""
    known = looked()
    with holder(str(environment / ".lock")) as process:
        from threading import Timer

        timer = Timer(0.2, process.kill)
        timer.start()
        done = removal.remove(known, Surroundings.here(), time.monotonic() + 60)
        timer.join()
    assert done is not None
    assert done.kept == ""
    assert entries(environment) == []


@pytest.mark.parametrize("locking", [kind.Locking(kind.LEASE, in_use=False), kind.Locking(in_use=False)])
def test_where_nobody_can_tell_who_runs(
    environment: Path, looked: Looked, removed: Removed, locking: kind.Locking
) -> None:
    """Leased, or without shared locks."""
    (environment / ".envsync/locking").unlink()
    kind.record(Environment(str(environment)), locking)
    assert "nobody can tell whether commands run in it" in looked().kept
    assert "nobody can tell whether commands run in it" in removed().kept
    assert unverified(environment) == []


def test_where_flock_stays_within_the_node(
    environment: Path, removed: Removed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the mount table says."""
    monkeypatch.setattr(mounts.Mount, "local_flock", "lustre, localflock")
    assert "flock stays within the node (lustre, localflock)" in removed().kept
    assert unverified(environment) == []


def test_a_record_that_is_damaged(environment: Path, removed: Removed) -> None:
    """Others may hold a lock by what it said."""
    (environment / ".envsync/locking").write_text("nonsense\n\n\n\n\n\n\n\n")
    assert "is damaged" in removed().kept
    assert environment.is_dir()


def test_one_that_this_command_runs_in(environment: Path, removed: Removed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that has activated it, or the Python that runs envsync."""
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    assert removed().kept == "this command runs in it"
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setattr(sys, "prefix", str(environment))
    assert removed().kept == "this command runs in it"


@needs.PROC
def test_one_that_was_started_past_envsync(environment: Path, removed: Removed) -> None:
    """By a path to its Python: no lock knows, but this host does."""
    for program in (environment / "bin/python", f"{environment.name}/bin/python"):
        with subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE, cwd=environment.parent) as process:
            while not processes.command_of(process.pid).startswith("python"):
                time.sleep(0.01)
            assert f"pid {process.pid}" in removed().kept
            process.communicate(b"\n")
    assert removed().kept == ""


@needs.PROC
def test_an_in_use_lock_that_was_lost(environment: Path, removed: Removed) -> None:
    """A purge has taken its name while a command holds it: the stamp still knows which one it was."""
    with holder(str(environment / ".envsync/in-use"), "shared") as process:
        (environment / ".envsync/in-use").unlink()
        assert f"pid {process.pid}" in removed().kept
    assert unverified(environment) == []


def test_one_that_was_used_meanwhile(environment: Path, looked: Looked) -> None:
    """It was chosen for its age, and is not that old any more."""
    os.utime(environment / ".envsync/in-use", (OLD, OLD))
    known = looked()
    os.utime(environment / ".envsync/in-use")
    done = removal.remove(known, Surroundings.here(), 0.0)
    assert done is not None
    assert done.kept == removal.CHANGED
    assert envsync.sync(LOCK, env=str(environment.parent / "{digest}")).outcome == "current"


def test_one_that_is_gone(environment: Path, looked: Looked) -> None:
    """Somebody else has removed it, which is what was wanted."""
    known = looked()
    shutil.rmtree(environment)
    assert removal.remove(known, Surroundings.here(), 0.0) is None
    assert entries(environment) == []


def test_one_that_somebody_wants(tmp_path: Path, looked: Looked, removed: Removed) -> None:
    """It was never served, and who waits has to hear how that ended. Once nobody does, it goes."""
    environment = Environment(f"{tmp_path}/envs/{'b' * 32}")
    directory.prepare(environment)
    wanted = bare.want_nowait(environment)
    assert wanted is not None
    known = looked()
    assert "somebody waits for it" in getattr(removal.remove(known, Surroundings.here(), 0.0), "kept", "")
    wanted.release()
    assert removed().kept == ""
    assert os.listdir(tmp_path / "envs") == []


def test_directories_that_belong_to_it_alone(tmp_path: Path) -> None:
    """Go with it; those above the template stay."""
    template = Template(f"{tmp_path}/envs/{{digest}}/in/venv")
    envsync.sync(LOCK, env=template.text)
    from envsync.environments.known import look

    (found,) = template.find()
    known = look(found, Surroundings.here())
    assert known is not None
    done = removal.remove(known, Surroundings.here(), 0.0)
    assert done is not None
    assert done.kept == ""
    assert os.listdir(tmp_path / "envs") == []


def test_one_that_cannot_be_renamed(environment: Path, looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, and as current as it was."""
    known = looked()

    def refuse(source: str, destination: str) -> None:
        if TRASH in destination:
            raise OSError(5, "Input/output error")
        os.rename(source, destination)

    monkeypatch.setattr(atomic, "move", refuse)
    with pytest.raises(FilesystemError, match="cannot remove"):
        removal.remove(known, Surroundings.here(), 0.0)
    assert entries(environment) == [environment.name]
    assert envsync.sync(LOCK, env=str(environment.parent / "{digest}")).outcome == "current"


def test_a_filesystem_that_does_not_rename_directories(
    environment: Path, removed: Removed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is deleted in its place."""
    rename = os.rename

    def refuse(source: str, destination: str) -> None:
        if os.path.isdir(source):
            raise OSError(18, "Invalid cross-device link")
        rename(source, destination)

    monkeypatch.setattr(native, "replace", refuse)
    assert removed().kept == ""
    assert entries(environment) == []


@needs.MEMFD
@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EDQUOT], ids=errno.errorcode.get)
def test_killed_while_it_is_deleted_in_its_place(
    tmp_path: Path, run_envsync: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """The next sync makes it whole, the next prune removes it. With a quota that is used up, nothing can be made."""
    monkeypatch.chdir(tmp_path)
    rename, write = os.rename, atomic.write

    def refuse(source: str, destination: str) -> None:
        if os.path.isdir(source) or reason == errno.EDQUOT:
            raise OSError(reason, os.strerror(reason))
        rename(source, destination)

    def no_room(path: str, data: bytes, **how: Any) -> None:
        if reason == errno.EDQUOT and os.path.isdir("envs/" + os.listdir("envs")[0] + "/lib"):
            raise FilesystemError("write", path, OSError(reason, os.strerror(reason)))
        write(path, data, **how)

    words = ("--lock", LOCK, "--env", "envs/{digest}")
    nth = 1
    while True:
        run_envsync("sync", *words, check=True)
        with monkeypatch.context() as patched:
            patched.setattr(native, "replace", refuse)
            patched.setattr(atomic, "write", no_room)
            blow = strike(["env", "prune", "envs/{digest}", "--yes"], nth, KILL)
        if not blow.struck:
            break
        nth += 1 if nth < 6 or nth > 90 else 25
        if nth % 2:
            done = run_envsync("run", *words, "--", "greet")
            assert done.returncode == 0, (blow, done.stderr)
            (there,) = (tmp_path / "envs").iterdir()
            assert unverified(there) == []
        assert run_envsync("env", "prune", "envs/{digest}", "--yes").returncode == 0
        assert os.listdir("envs") == [], blow
    assert os.waitstatus_to_exitcode(blow.status) == 0
    assert nth > 30


def test_one_that_became_a_link(environment: Path, looked: Looked, tmp_path: Path) -> None:
    """After it was chosen: neither the link goes, nor what is behind it."""
    known = looked()
    environment.rename(tmp_path / "elsewhere")
    environment.symlink_to(tmp_path / "elsewhere")
    done = removal.remove(known, Surroundings.here(), 0.0)
    assert done is not None
    assert done.kept == "it is a symbolic link"
    assert environment.is_symlink()
    assert (environment / ".envsync/stamp").is_file()


def test_one_that_cannot_be_written_to(environment: Path, removed: Removed) -> None:
    """Its directories are its owner's all the same."""
    if os.geteuid() == 0:
        pytest.skip("root can write to it")
    for path in (*environment.rglob("site-packages"), environment):
        path.chmod(0o555)
    assert removed().kept == ""
    assert entries(environment) == []


def test_trash_of_who_was_killed(environment: Path, template: Template) -> None:
    """Whoever removes next deletes it, links in it not followed."""
    os.rename(environment, environment.with_name(f"{TRASH}1"))
    (environment.with_name(f"{TRASH}1") / "way").symlink_to(FIXTURES)
    removal.sweep(template)
    assert entries(environment) == []
    assert (FIXTURES / "pylock.toml").is_file()
