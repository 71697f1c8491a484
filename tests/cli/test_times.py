"""Times and modes of what is installed: new, never taken for another version's, and as the umask of this sync says."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environments import FIXTURES, site_packages, unverified
from tests.wheels import build_wheel

LOCK = str(FIXTURES / "pylock.toml")
Run = Callable[..., subprocess.CompletedProcess[str]]
PRINT = ("python", "-c", "import demo; print(demo.VALUE)")


def pinned(directory: Path, *wheels: str) -> Path:
    """Write requirements that name local wheels."""
    names = (os.path.basename(wheel).partition("-")[0] for wheel in wheels)
    path = directory / "requirements.txt"
    path.write_text("".join(f"{name} @ file://{wheel}\n" for name, wheel in zip(names, wheels, strict=True)))
    return path


def version(directory: Path, number: int, name: str = "demo") -> str:
    """Build a version of which the module has the same size as that of any other."""
    return build_wheel(directory, name, f"{number}.0", {"demo/__init__.py": f"VALUE = {number}\n"})


def files(*places: Path) -> Iterator[Path]:
    for place in places:
        yield from (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("link", ["hardlink", "copy", "symlink"])
def test_what_was_made_now_is_new(run_envsync: Run, tmp_path: Path, link: str) -> None:
    """Whichever way files come, none of an environment and its cache is old, by mtime or by atime."""
    before = time.time() - 60
    cache = tmp_path / "cache"
    words = ("--cache-dir", cache, "--env", "env", "--link-mode", link, "--compile-bytecode")
    run_envsync("sync", "--lock", LOCK, *words, check=True)
    old = [path for path in files(tmp_path / "env", cache) if min(path.stat().st_mtime, path.stat().st_atime) < before]
    assert old == []


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("link", ["hardlink", "copy", "symlink"])
def test_old_bytecode_never_fits_a_new_version(run_envsync: Run, tmp_path: Path, link: str, *, compiled: bool) -> None:
    """Though both were fetched in one moment, and Python keeps bytecode where no installer looks."""
    words = ["--env", "env", "--link-mode", link, *(["--compile-bytecode"] if compiled else [])]
    for number in (1, 2, 1):
        lock = pinned(tmp_path, version(tmp_path, number))
        done = run_envsync("run", "--lock", lock, *words, "--", *PRINT, env={"PYTHONPYCACHEPREFIX": "kept"}, check=True)
        assert done.stdout == f"{number}\n"


@pytest.mark.parametrize("link", ["hardlink", "copy", "symlink"])
@pytest.mark.parametrize("name", ["demo", "other"])
def test_what_replaces_a_file_of_its_size_and_second_gets_another(
    run_envsync: Run, tmp_path: Path, link: str, name: str
) -> None:
    """From another cache or of another project, it may have the second of what it replaces."""
    lock = pinned(tmp_path, version(tmp_path, 1))
    prefix = {"PYTHONPYCACHEPREFIX": "kept"}
    run_envsync("run", "--lock", lock, "--env", "env", "--", *PRINT, env=prefix, check=True)
    module = site_packages(tmp_path / "env") / "demo" / "__init__.py"
    second = int(module.stat().st_mtime)
    claims = tmp_path / "cache" / "v1" / "names" / name
    claims.mkdir(parents=True)
    for later in range(second + 2, int(time.time()) + 600, 2):
        (claims / str(later)).touch()
    lock = pinned(tmp_path, version(tmp_path, 2, name))
    words = ("--cache-dir", "cache", "--compile-bytecode", "--link-mode", link)
    done = run_envsync("run", "--lock", lock, "--env", "env", *words, "--", *PRINT, env=prefix, check=True)
    assert done.stdout == "2\n"
    assert module.stat().st_mtime_ns == (second + 1) * 10**9
    assert unverified(tmp_path / "env") == []
    assert run_envsync("check", "--env", "env", "--cache-dir", "cache").returncode == 0


def test_what_was_not_read_for_long_looks_new_once_it_is_linked(run_envsync: Run, tmp_path: Path) -> None:
    """Its atime is that of the linking, its mtime is kept; what was read within a day is left as it is."""
    cache = tmp_path / "cache"
    words = ("--lock", LOCK, "--cache-dir", cache, "--link-mode", "hardlink")
    run_envsync("sync", *words, "--env", "one", check=True)
    entries = [path for path in files(cache / "v1" / "wheels") if path.name != "manifest.json"]
    entries.sort()
    now = time.time_ns()
    times = {path: path.stat().st_mtime_ns for path in entries}
    lately = now - 3600 * 10**9
    for number, path in enumerate(entries):
        os.utime(path, ns=(lately if number % 2 else now - 8 * 86400 * 10**9, times[path]))
    apart = [path for path in files(cache / "v1" / "wheels") if path.name in ("REQUESTED", "manifest.json")]
    old = {path.parent for path in entries if path.name == "METADATA" and path.stat().st_atime_ns < lately}
    for path in apart:
        os.utime(path, ns=(now - 8 * 86400 * 10**9, path.stat().st_mtime_ns))
    run_envsync("sync", *words, "--env", "two", check=True)
    assert all(path.stat().st_atime_ns >= now for path in apart if path.parent in old)
    assert {path: path.stat().st_mtime_ns for path in entries} == times
    linked = [path for path in entries if path.stat().st_nlink == 3]
    assert len(linked) > 20
    for number, path in enumerate(entries):
        atime = path.stat().st_atime_ns
        if path in linked:
            assert atime == lately if number % 2 else atime >= now


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
@pytest.mark.parametrize("filled", [0o022, 0o077])
def test_the_umask_of_a_sync_says_who_may_read(run_envsync: Run, tmp_path: Path, umask: int, filled: int) -> None:
    """Whoever filled the cache. Files of the cache are still hard links, and nothing in an environment is closed to
    whom the umask lets in, nor anything of its own open to others."""
    words = ("sync", "--lock", LOCK, "--cache-dir", "cache", "--link-mode", "hardlink", "--compile-bytecode")
    run_envsync(*words, "--env", "first", umask=filled, check=True)
    run_envsync(*words, "--env", "env", umask=umask, check=True)
    env = tmp_path / "env"
    linked = [path for path in files(site_packages(env)) if path.stat().st_nlink > 1]
    assert len(linked) > 25
    assert {mode(path) for path in linked} <= {0o444, 0o555}
    assert {mode(path) for path in (env, *env.rglob("*")) if path.is_dir() and not path.is_symlink()} == {
        0o777 & ~umask
    }
    own = [path for path in files(env) if path.stat().st_nlink == 1 and ".envsync" not in path.parts]
    assert {mode(path) for path in own} == {0o666 & ~umask, 0o777 & ~umask}
    assert mode(env / "pyvenv.cfg") == 0o666 & ~umask


def test_copies_follow_the_umask(run_envsync: Run, tmp_path: Path) -> None:
    """They are the environment's own."""
    words = ("sync", "--lock", LOCK, "--cache-dir", "cache", "--link-mode", "copy")
    run_envsync(*words, "--env", "first", umask=0o077, check=True)
    run_envsync(*words, "--env", "env", umask=0o027, check=True)
    copied = [path for path in files(tmp_path / "env") if ".envsync" not in path.parts]
    assert {mode(path) for path in copied} == {0o640, 0o750}


def test_no_directory_is_linked_that_others_could_not_enter(run_envsync: Run, tmp_path: Path) -> None:
    """A cache that was filled under another umask has directories that are closed to them; files come one by one."""
    words = ("sync", "--lock", LOCK, "--cache-dir", "cache", "--link-mode", "symlink")
    run_envsync(*words, "--env", "first", umask=0o077, check=True)
    run_envsync(*words, "--env", "env", umask=0o022, check=True)
    assert any(path.is_symlink() for path in site_packages(tmp_path / "first").iterdir())
    assert not any(path.is_symlink() for path in site_packages(tmp_path / "env").iterdir())
    assert all(mode(path) & 0o044 for path in files(site_packages(tmp_path / "env")))


def test_copies_of_what_is_old_are_new(run_envsync: Run, tmp_path: Path) -> None:
    """Against purges by mtime alone: with files of its own, an environment is new however old the cache is."""
    wheel = version(tmp_path, 1)
    lock = pinned(tmp_path, wheel)
    week = int(time.time()) - 7 * 86400
    ago = "import time, sys; now = time.time; time.time = lambda: now() - 7 * 86400\n"
    add = (
        "from envsync.store.store import Store; from tests.wheels import artifact\n"
        "store = Store(sys.argv[1]); store.prepare(); store.add(sys.argv[2], artifact(sys.argv[2]))"
    )
    words = [sys.executable, "-c", ago + add, str(tmp_path / "cache"), wheel]
    subprocess.run(words, check=True, cwd=Path(__file__).parents[2])
    words = ["--lock", str(lock), "--cache-dir", "cache"]
    run_envsync("sync", *words, "--env", "linked", check=True)
    run_envsync("sync", *words, "--env", "copied", "--link-mode", "copy", check=True)
    run_envsync("sync", *words, "--env", "compiled", "--link-mode", "copy", "--compile-bytecode", check=True)
    times = {env: (site_packages(tmp_path / env) / "demo" / "__init__.py").stat().st_mtime for env in ENVS}
    assert times["linked"] == times["compiled"] < week + 10
    assert min(path.stat().st_mtime for path in files(tmp_path / "copied")) > time.time() - 3600
    for env in ENVS:
        assert unverified(tmp_path / env) == []
        compiling = ["--compile-bytecode"] if env == "compiled" else []
        assert "current" in run_envsync("sync", *words, "--env", env, *compiling, "--json", check=True).stdout
        assert run_envsync("check", "--env", env, "--cache-dir", "cache").returncode == 0


ENVS = ("linked", "copied", "compiled")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_what_venv_itself_makes_follows_the_umask(run_envsync: Run, tmp_path: Path, umask: int) -> None:
    """In a place with a name that no pattern is kept for, the scripts have the modes of venv's templates at first."""
    run_envsync("sync", "--lock", LOCK, "--env", "an env", umask=umask, check=True)
    own = [path for path in files(tmp_path / "an env") if path.stat().st_nlink == 1 and ".envsync" not in path.parts]
    assert {mode(path) & ~0o111 for path in own} == {0o666 & ~umask}
