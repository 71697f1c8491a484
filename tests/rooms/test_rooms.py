"""Rooms that are small: full disks, few descriptors, small files, what is read-only or somebody else's.

Each time: a clear error that names the path and the reason, 125, and nothing lost; then, with more room, the next
command succeeds and nothing is left over.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from envsync import forking
from tests.conftest import ROOT, envsync_command
from tests.environments import FIXTURES, files, leftovers, site_packages, unowned, unverified
from tests.rooms.narrow import make_lock
from tests.wheels import build_wheel, sha256_of

LOCK, NEXT = FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"
ROOTLESS = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
NOBODY, SOMEBODY, GROUP = 65534, 12345, 4321

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def words(*arguments: object) -> list[str]:
    return [*envsync_command(), *map(str, arguments)]


def output(command: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=110, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="session")
def unshare() -> str:
    """Tell why no file systems of our own can be mounted here; empty if they can."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "there is no `unshare` here"
    script = "mount -t tmpfs -o size=1m tmpfs /mnt && mount -o remount,size=2m /mnt"
    done = output(["unshare", *ROOTLESS, "--mount", "sh", "-c", script])
    return f"no file system can be mounted here: {done.stderr.strip()}" if done.returncode else ""


# Full disks

TRIALS = [
    ("env", "size", "warm"),
    ("env", "size", "first"),
    ("both", "size", "warm"),
    ("both", "size", "cold"),
    ("cache", "size", "cold"),
    ("env", "inodes", "warm"),
    ("both", "inodes", "cold"),
    ("both", "inodes", "first"),
    ("cache", "inodes", "cold"),
]
STRUCK = {
    ("env", "warm"): ("/new/", ".envsync/journal"),
    ("env", "first"): ("/new/", ".envsync/journal"),
    ("both", "warm"): ("/new/", ".envsync/journal"),
    ("both", "cold"): ("/unpack-ID/", "/new/", ".envsync/journal"),
    ("both", "first"): ("/new/", ".envsync/journal"),
    ("cache", "cold"): ("/unpack-ID/", "manifest.json"),
}
"""Where the disk was full, at the least: each must be among the paths of the errors."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("where", "what", "how"), TRIALS)
def test_a_full_disk(unshare: str, tmp_path: Path, where: str, what: str, how: str) -> None:
    """No pages or no inodes, wherever that strikes: the old environment runs, and is synced with more room."""
    if unshare:
        pytest.skip(unshare)
    program = [sys.executable, "-m", "tests.rooms.narrow", where, what, how, str(tmp_path)]
    done = output(["unshare", *ROOTLESS, "--mount", *program], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["problems"] == []
    assert said["outcomes"].get("unchanged", said["outcomes"].get("begun", 0)) >= 5, said
    for place in STRUCK[where, how]:
        assert any(place in path for path in said["errors"]), (place, said["errors"])


def test_who_comes_later_tries_afresh(run_envsync: Run, tmp_path: Path) -> None:
    """Who is started as soon as another has failed is not told that one's failure: there may be room by now."""
    wheel = build_wheel(tmp_path, "demo")
    lock = tmp_path / "pylock.toml"
    archive = f'[{{ path = "{wheel}", hashes = {{ sha256 = "{"0" * 64}" }} }}]'
    package = f'[[packages]]\nname = "demo"\nversion = "1.0"\nwheels = {archive}\n'
    lock.write_text(f'lock-version = "1.0"\ncreated-by = "tests"\n{package}')
    sync = shlex.join(words("sync", "--lock", lock, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache"))
    for _ in range(10):  # it was a matter of ten milliseconds
        done = output(["sh", "-c", f"{sync}; {sync}; exit $?"])
        assert done.returncode == 125
        assert done.stderr.count("refusing wheel") == 2, done.stderr
        assert "which this process waited for" not in done.stderr


@pytest.mark.xfail(reason="SIGTERM ends a child's cleaning up, too (envsync.forking): it leaves `unpack-*` for a day")
def test_cleaning_up_is_not_interrupted(tmp_path: Path) -> None:
    """If both processes that unpack meet a full disk, both throw away what they have begun."""
    parent, begun, cleaned = os.getpid(), tmp_path / "begun", tmp_path / "cleaned"

    def work(number: int) -> None:
        if os.getpid() != parent:
            try:
                raise OSError(28, "No space left on device")
            finally:
                begun.touch()
                time.sleep(0.3)
                cleaned.touch()
        while not begun.exists():
            time.sleep(0.001)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        forking.share(2, work)
    assert cleaned.exists()


# Read-only


READ_ONLY = 'set -e; mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift; exec "$@"'


def read_only(directory: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command while a directory cannot be written to, not even by root."""
    start = ["unshare", *ROOTLESS, "--mount", "sh", "-c", READ_ONLY, "sh", str(directory)]
    return output([*start, *command], cwd=directory.parent)


@pytest.fixture
def synced(run_envsync: Run, tmp_path: Path, unshare: str) -> Path:
    """A directory with an environment and its cache."""
    if unshare:
        pytest.skip(unshare)
    run_envsync("sync", "--lock", LOCK, "--env", "env", "--cache-dir", "cache", check=True)
    return tmp_path


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
    """What it lacks cannot be put there: an error that names it, and another cache as the hint; nothing is changed."""
    empty = synced / "empty"
    empty.mkdir()
    if made:
        for name in ("wheels", "tmp", "locks"):
            (empty / "v1" / name).mkdir(parents=True)
    options = ["--lock", NEXT, "--env", synced / "env", "--cache-dir", empty]
    done = read_only(empty, words("sync", *options))
    assert done.returncode == 125
    assert str(empty) in done.stderr
    assert "Read-only file system" in done.stderr
    done = output(words("run", "--lock", LOCK, "--env", synced / "env", "--", "greet"))
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr


# Limits of a process


def many_wheels(directory: Path, count: int, each: int) -> Path:
    """Make a lock file of many wheels with many files."""
    lines = ['lock-version = "1.0"', 'created-by = "tests"']
    for number in range(count):
        name = f"pack{number}"
        modules = {f"{name}/d{part % 8}/m{part}.py": f"V = {part}\n" for part in range(each)}
        wheel = build_wheel(directory, name, "1.0", {f"{name}/__init__.py": "", **modules})
        archive = f'[{{ path = "{wheel}", hashes = {{ sha256 = "{sha256_of(wheel)}" }} }}]'
        lines += ["[[packages]]", f'name = "{name}"', 'version = "1.0"', f"wheels = {archive}"]
    path = directory / "pylock.many.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("link_mode", ["auto", "copy"])
@pytest.mark.parametrize("limit", [64, 256, 1000])
def test_few_descriptors(tmp_path: Path, limit: int, link_mode: str) -> None:
    """Forty wheels of forty files each are installed with few open files, and a command runs with them."""
    lock = many_wheels(tmp_path, 40, 40)
    options = ["--lock", lock, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache", "--link-mode", link_mode]
    show = "import os, pack7.d3.m3; print(len(os.listdir('/proc/self/fd')))"
    script = f'ulimit -n {limit}; exec "$@"'
    for _ in range(2):
        done = output(["sh", "-c", script, "sh", *words("run", *options, "-q", "--", "python", "-c", show)])
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 10
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []


@pytest.mark.parametrize("limit", [4, 8, 12, 16, 24])
def test_hardly_any_descriptors(tmp_path: Path, limit: int) -> None:
    """With so few that nothing works, whatever happens is an error, and the next command is none the worse for it."""
    lock = many_wheels(tmp_path, 4, 10)
    options = ["--lock", lock, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache", "-q"]
    done = output(["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *words("sync", *options)])
    assert done.returncode >= 0, done.stderr
    done = output(words("sync", *options))
    assert done.returncode == 0, done.stderr
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []


@pytest.mark.parametrize("kilobytes", [0, 1, 2, 4, 8, 64, 128])
def test_small_files_only(tmp_path: Path, kilobytes: int) -> None:
    """With a limit on the size of files, the one that is too large is named, and the old environment stays current."""
    old, new = (make_lock(tmp_path / "wheels", version) for version in ("1.0", "2.0"))
    options = ["--env", tmp_path / "env", "--cache-dir", tmp_path / "cache", "-q"]
    assert output(words("sync", "--lock", old, *options)).returncode == 0
    before = files(tmp_path / "env")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    done = output(words("sync", "--lock", new, *options, "--link-mode", "copy"), preexec_fn=limit)
    assert done.returncode == 125, done
    assert "File too large" in done.stderr
    assert str(tmp_path) in done.stderr
    assert files(tmp_path / "env") == before
    done = output(words("run", "--lock", old, *options, "--", "tool"), preexec_fn=limit)
    assert (done.returncode, done.stdout) == (0, "tool 1.0\n"), done.stderr
    done = output(words("run", "--lock", new, *options, "--", "tool"))
    assert (done.returncode, done.stdout) == (0, "tool 2.0\n"), done.stderr
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []
    left = os.listdir(tmp_path / "cache" / "v1" / "tmp")
    assert [name for name in left if not name.startswith("unpack-")] == []  # see test_cleaning_up_is_not_interrupted


# Other users


def as_user(user: int, *command: str, group: int | None = None, umask: str = "022") -> list[str]:
    """Return the words that run a command as another user."""
    start = ["setpriv", "--reuid", str(user), "--regid", str(user if group is None else group), "--clear-groups"]
    return [*start, "sh", "-c", f'umask {umask}; HOME=/; exec "$@"', "sh", *command]


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that other users may come to, if there can be any here that can use this Python."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no `setpriv` here")
    place = tmp_path_factory.mktemp("shared")
    for path in (place, *place.parents):
        if path.stat().st_uid == os.geteuid() and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o055)
    copied = place / "fixtures"
    shutil.copytree(FIXTURES, copied)
    (place / "work").mkdir()
    (place / "work").chmod(0o777)
    done = output(as_user(NOBODY, *words("--version")), cwd=place / "work")
    if done.returncode:
        pytest.skip(f"another user cannot use this Python or this tree: {done.stderr.strip()[-200:]}")
    return place


def options_in(shared: Path, lock: str = "pylock.toml") -> list[str | Path]:
    work = shared / "work"
    return ["--lock", shared / "fixtures" / lock, "--env", work / "env", "--cache-dir", work / "cache"]


def test_a_directory_of_somebody_else_s(shared: Path) -> None:
    """An environment that may be read but not written runs if it is current, and is refused if it is not."""
    done = output(as_user(SOMEBODY, *words("sync", *options_in(shared))), cwd=shared)
    assert done.returncode == 0, done.stderr
    before = files(shared / "work" / "env")
    done = output(as_user(NOBODY, *words("run", *options_in(shared), "--", "greet")), cwd=shared)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    done = output(as_user(NOBODY, *words("sync", *options_in(shared, "pylock.next.toml"))), cwd=shared)
    assert done.returncode == 125
    assert "Permission denied" in done.stderr
    assert str(shared / "work" / "env") in done.stderr
    assert files(shared / "work" / "env") == before


def test_a_place_where_nothing_may_be_made(shared: Path) -> None:
    """An environment in somebody else's directory cannot be made: that one is named."""
    done = output(as_user(NOBODY, *words("sync", "--lock", LOCK, "--env", shared / "new")), cwd=shared / "work")
    assert done.returncode == 125
    assert "Permission denied" in done.stderr
    assert str(shared / "new") in done.stderr
    assert not (shared / "new").exists()


def modes(env: Path) -> dict[str, set[int]]:
    """Return the modes of what envsync has made, by kind. Links have none of their own."""
    site = site_packages(env)
    found: dict[str, set[int]] = {"directories": set(), "modules": set(), "scripts": set(), "own": set()}
    for path in env.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink() or "__pycache__" in path.parts or path.name == ".lock":
            continue
        if path.is_dir():
            found["directories"].add(mode)
        elif path.parent.name == ".envsync":
            found["own"].add(mode)
        elif path.is_relative_to(site):
            found["modules"].add(mode)
        elif path.parent.name == "bin" and path.name in ("greet", "tally"):
            found["scripts"].add(mode)
    return found


@pytest.mark.parametrize("link_mode", ["auto", "copy"])
@pytest.mark.parametrize("umask", ["077", "022", "002"])
def test_the_umask_counts(tmp_path: Path, umask: str, link_mode: str) -> None:
    """Files are as private as the umask says, whether linked or copied. Linked ones are read-only."""
    options = ["--lock", LOCK, "--env", tmp_path / "env", "--cache-dir", tmp_path / "cache", "--link-mode", link_mode]
    done = output(["sh", "-c", f'umask {umask}; exec "$@"', "sh", *words("run", *options, "-q", "--", "greet")])
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    taken = int(umask, 8)
    found = modes(tmp_path / "env")
    assert found["directories"] == {0o777 & ~taken}
    assert found["scripts"] == {0o777 & ~taken}
    assert found["own"] == {0o666 & ~taken}
    if link_mode == "copy":
        assert found["modules"] == {0o666 & ~taken}
    else:
        assert all(not mode & taken & ~0o111 for mode in found["modules"]), found["modules"]
        assert all(not mode & 0o222 for mode in found["modules"] - {0o666 & ~taken}), found["modules"]


@pytest.mark.parametrize("umask", ["002", "077"])
def test_two_users_of_one_group(shared: Path, umask: str) -> None:
    """With umask 002 and a directory of the group's, one upgrades what the other made; with 077, it is refused."""
    work = shared / "work"
    os.chown(work, -1, GROUP)
    work.chmod(0o2775)
    done = output(as_user(SOMEBODY, *words("sync", *options_in(shared)), group=GROUP, umask=umask), cwd=shared)
    assert done.returncode == 0, done.stderr
    upgrade = words("run", *options_in(shared, "pylock.next.toml"), "-q", "--", "greet")
    done = output(as_user(NOBODY, *upgrade, group=GROUP, umask=umask), cwd=shared)
    if umask == "077":
        assert done.returncode == 125
        assert "Permission denied" in done.stderr
        return
    assert (done.returncode, done.stdout) == (0, "HOWDY, PARTNER!\n"), done.stderr
    back = words("run", *options_in(shared), "-q", "--", "greet")
    done = output(as_user(SOMEBODY, *back, group=GROUP, umask=umask), cwd=shared)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    assert unverified(work / "env") == []
    assert unowned(work / "env") == set()
    assert leftovers(work / "env") == []


def test_a_quota(tmp_path: Path) -> None:
    """EDQUOT is like ENOSPC, by another name."""
    pytest.skip("a quota takes a disk image, its tools and the kernel's quota support: not to be had cheaply")
