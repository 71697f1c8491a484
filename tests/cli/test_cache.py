"""`envsync cache`: what a person types and sees."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.conftest import envsync_command
from tests.environments import FIXTURES, unverified
from tests.projects import make_project

LOCK = str(FIXTURES / "pylock.toml")
Run = Callable[..., CompletedProcess[str]]
DAYS_40 = 40 * 86400


@pytest.fixture
def cache(tmp_path: Path, run_envsync: Run) -> Path:
    """A cache with five wheels, of which an environment has links."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", "--cache-dir", "cache", check=True)
    return tmp_path / "cache"


def wheels(cache: Path) -> list[Path]:
    return sorted((cache / "v1" / "wheels").iterdir())


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


@contextmanager
def in_use(cache: Path) -> Iterator[None]:
    """Use the cache as a sync does."""
    with (cache / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


class TestWhich:
    """The cache that is meant is the one that a sync here would use."""

    def dir(self, run: Run, *arguments: str, **options: object) -> str:
        done = run("cache", "dir", *arguments, **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.rstrip("\n")

    def test_the_users_own(self, run_envsync: Run, nobodys_home: Path) -> None:
        """By default it is where the user's caches are."""
        assert self.dir(run_envsync) == str(nobodys_home / ".cache" / "envsync")
        assert json.loads(self.dir(run_envsync, "--json")) == {"cache": str(nobodys_home / ".cache" / "envsync")}

    def test_a_home_with_a_tilde(self, run_envsync: Run, nobodys_home: Path, tmp_path: Path) -> None:
        """No shell sees `~` in a file, a variable or behind `--cache-dir=`; no directory of that name is made."""
        assert self.dir(run_envsync, "--cache-dir=~/here") == str(nobodys_home / "here")
        assert self.dir(run_envsync, "--cache-dir=~") == str(nobodys_home)
        assert self.dir(run_envsync, env={"ENVSYNC_CACHE_DIR": "~/here"}) == str(nobodys_home / "here")
        (tmp_path / "pyproject.toml").write_text('[tool.envsync]\ncache-dir = "~/here"\nenv = "~/env"\n')
        (tmp_path / "below").mkdir()
        shutil.copy(FIXTURES / "pylock.toml", tmp_path)
        assert self.dir(run_envsync, cwd=tmp_path / "below") == str(nobodys_home / "here")
        done = run_envsync("sync", "--dry-run", "--json", cwd=tmp_path / "below", check=True)
        assert json.loads(done.stdout)["env"] == str(nobodys_home / "env")
        done = run_envsync("cache", "dir", env={"HOME": None})
        assert (done.returncode, done.stdout) == (2, "")
        assert "is below HOME, which is not set" in done.stderr

    @pytest.mark.parametrize("home", ["relative", "~"])
    def test_no_home(self, run_envsync: Run, tmp_path: Path, home: str) -> None:
        """The environment alone gets what is fetched, which is said once, and nothing is made in the directory."""
        work = tmp_path / "work"
        work.mkdir()
        none = {"HOME": home, "XDG_CACHE_HOME": "relative", "ENVSYNC_CACHE_DIR": None}
        env = tmp_path / "env"
        done = run_envsync("sync", "--lock", FIXTURES / "pylock.toml", "--env", env, cwd=work, env=none)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("there is no cache, since HOME is not set or no absolute path") == 1
        assert unverified(env) == []
        assert list(work.iterdir()) == []
        for words in (["check"], ["status"], ["doctor"], ["sync", "--dry-run"]):
            done = run_envsync(*words, "--lock", FIXTURES / "pylock.toml", "--env", env, cwd=work, env=none)
            assert done.returncode == 0, done.stderr
        done = run_envsync("cache", "clean", cwd=work, env=none)
        assert done.returncode == 2
        assert "there is no cache" in done.stderr
        fallback = {**none, "ENVSYNC_CACHE_FALLBACK": str(tmp_path / "fallback")}
        done = run_envsync("sync", "--lock", FIXTURES / "pylock.next.toml", "--env", env, cwd=work, env=fallback)
        assert f"what was fetched went to `{tmp_path / 'fallback'}`" in done.stderr
        assert list(work.iterdir()) == []

    @pytest.mark.parametrize("lock_files", [0, 1, 2])
    def test_the_one_that_was_asked_for(self, run_envsync: Run, tmp_path: Path, lock_files: int) -> None:
        """Option, variable, table; with a lock file, without one, and with too many."""
        for name in ("pylock.toml", "requirements.txt")[:lock_files]:
            (tmp_path / name).write_text("")
        (tmp_path / "pyproject.toml").write_text('[tool.envsync]\ncache-dir = "of-the-project"\n')
        assert self.dir(run_envsync) == str(tmp_path / "of-the-project")
        variable = {"ENVSYNC_CACHE_DIR": "of-the-user"}
        assert self.dir(run_envsync, env=variable) == str(tmp_path / "of-the-user")
        assert self.dir(run_envsync, "--cache-dir", "typed", env=variable) == str(tmp_path / "typed")

    def test_in_a_directory_of_the_project(self, run_envsync: Run, tmp_path: Path) -> None:
        """The table beside the lock file counts, as it does for a sync, also if the lock file is not there yet."""
        (tmp_path / "below").mkdir()
        (tmp_path / "pyproject.toml").write_text('[tool.envsync]\ncache-dir = "c"\nlock = "pylock.missing.toml"\n')
        assert Path(tmp_path / "below" / self.dir(run_envsync, cwd=tmp_path / "below")).resolve() == tmp_path / "c"

    def test_a_table_that_makes_no_sense(self, run_envsync: Run, tmp_path: Path) -> None:
        """Nobody's own cache is cleaned because the project's cannot be read."""
        (tmp_path / "pyproject.toml").write_text("[tool.envsync]\ncache-dir = 7\n")
        done = run_envsync("cache", "clean")
        assert done.returncode == 2
        assert "`cache-dir` in [tool.envsync] of `pyproject.toml` has to be a string" in done.stderr


@pytest.mark.parametrize("command", ["dir", "size", "clean", "prune", "verify"])
def test_a_cache_that_does_not_exist_is_empty(run_envsync: Run, tmp_path: Path, command: str) -> None:
    """That is no error, and nothing is made."""
    for options in ([], ["--json"]):
        done = run_envsync("cache", command, "--cache-dir", "missing", *options)
        assert (done.returncode, done.stderr) == (0, "")
        assert str(tmp_path / "missing") in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_size_says_what_is_there_and_what_would_go(run_envsync: Run, cache: Path) -> None:
    """In all, what `prune` removes, and the largest."""
    age(wheels(cache)[0], DAYS_40)
    done = run_envsync("cache", "size", "--cache-dir", cache)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"`{cache}`: 5 wheels, ")
    assert "not linked from environments" in lines[0]
    assert f"`envsync cache prune --cache-dir {cache}` removes it: 1 wheels, " in lines[1]
    assert "greet-1.0-py3-none-any.whl" in done.stdout
    found = json.loads(run_envsync("cache", "size", "--json", "--cache-dir", cache).stdout)
    assert (found["all"]["wheels"], found["prunable"]["wheels"]) == (5, 1)
    assert found["all"]["bytes"] > found["all"]["free"] > 0


def test_clean_removes_all_and_environments_stay_whole(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """A dry run removes nothing and says the same; the next sync fetches again."""
    would = run_envsync("cache", "clean", "--dry-run", "--cache-dir", cache)
    assert would.stdout.startswith("would remove 5 wheels, ")
    assert len(wheels(cache)) == 5
    found = json.loads(run_envsync("cache", "clean", "--dry-run", "--json", "--cache-dir", cache).stdout)
    assert (found["dry_run"], found["wheels"]) == (True, 5)
    done = run_envsync("cache", "clean", "--cache-dir", cache)
    assert done.stdout.startswith("removed 5 wheels, ")
    assert sorted(cache.glob("v1/*/*")) == []
    assert (cache / "CACHEDIR.TAG").exists()
    assert unverified(tmp_path / "env") == []
    run = ["run", "--lock", LOCK, "--cache-dir", cache, "--env"]
    assert run_envsync(*run, "env", "--", "greet").stdout == "HELLO, WORLD!\n"
    assert run_envsync(*run, "another", "--", "greet").stdout == "HELLO, WORLD!\n"
    assert json.loads(run_envsync("cache", "clean", "--json", "--cache-dir", cache).stdout)["wheels"] == 5
    assert run_envsync("cache", "clean", "--quiet", "--cache-dir", cache).stdout == ""


def test_prune_removes_what_was_not_used_for_long(run_envsync: Run, cache: Path) -> None:
    """A month, unless it is told otherwise: by option, variable, or table."""
    old, older, *_ = wheels(cache)
    age(old, 2 * 86400)
    age(older, DAYS_40)
    assert run_envsync("cache", "prune", "--dry-run", "--cache-dir", cache).stdout.startswith("would remove 1 wheels")
    assert run_envsync("cache", "prune", "--cache-dir", cache).stdout.startswith("removed 1 wheels")
    assert old.exists()
    assert not older.exists()
    done = run_envsync("cache", "prune", "--cache-dir", cache, env={"ENVSYNC_OLDER_THAN": "1.5d"})
    assert done.stdout.startswith("removed 1 wheels")
    assert len(wheels(cache)) == 3


def test_prune_keeps_what_fits(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """What was used least lately goes first; the project may say how much may stay."""
    for days, path in enumerate(wheels(cache)):
        age(path, days * 86400)
    kept = wheels(cache)[0]
    every = json.loads(run_envsync("cache", "size", "--json", "--cache-dir", cache).stdout)["all"]["bytes"]
    limit = every - 1
    (tmp_path / "pyproject.toml").write_text(f'[tool.envsync]\nmax-size = "{limit}"\ncache-dir = "cache"\n')
    assert run_envsync("cache", "prune").stdout.startswith("removed 1 wheels")
    assert run_envsync("cache", "prune").stdout.startswith("removed 0 wheels")
    run_envsync("cache", "prune", "--max-size", str(limit // 2))
    assert kept in wheels(cache)
    assert len(wheels(cache)) < 4
    # The table is no obstacle for a sync.
    assert run_envsync("sync", "--lock", LOCK, "--env", "env").returncode == 0


@pytest.mark.parametrize(
    ("option", "texts"),
    [
        ("--older-than", ("", "30", "-1d", "1y", "d", "1e3d", "٣d")),
        ("--max-size", ("", "-1", "1e3", "ten", "10X", "5i", "9" * 400, "1.5.2G")),
    ],
)
def test_what_is_no_age_or_size_is_refused(run_envsync: Run, cache: Path, option: str, texts: tuple[str, ...]) -> None:
    """Exit status 2, and nothing is removed: 30 without a unit hardly means half a minute."""
    for path in wheels(cache):
        age(path, DAYS_40)
    for text in texts:
        done = run_envsync("cache", "prune", option, text, "--cache-dir", cache)
        assert done.returncode == 2
        assert f"option `{option}`: `{text}` is not" in done.stderr
    assert len(wheels(cache)) == 5


@pytest.mark.parametrize("command", ["clean", "prune"])
def test_a_cleaner_waits_for_whoever_uses_the_cache(run_envsync: Run, cache: Path, command: str) -> None:
    """Exit status 124 when that took too long, naming the process; nothing was removed."""
    for path in wheels(cache):
        age(path, DAYS_40)
    with in_use(cache):
        for bound in (["--timeout", "0.3"], []):
            variables = {} if bound else {"ENVSYNC_TIMEOUT": "0.3"}
            done = run_envsync("cache", command, "--cache-dir", cache, *bound, env=variables)
            assert done.returncode == 124
            assert f"waiting for whoever uses the cache: pid {os.getpid()}\n" in done.stderr
            assert f"pid {os.getpid()}; nothing was removed" in done.stderr
    assert len(wheels(cache)) == 5
    assert run_envsync("cache", command, "--cache-dir", cache, "--timeout", "0").stdout.startswith("removed 5 wheels")


def test_prune_keeps_what_is_used_while_it_waits(run_envsync: Run, cache: Path) -> None:
    """What was old when it looked, and new when its turn came, stays."""
    for path in wheels(cache):
        age(path, DAYS_40)
    used = wheels(cache)[2]
    words = [*envsync_command(), "cache", "prune", "--cache-dir", str(cache)]
    with in_use(cache):
        prune = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert prune.stderr is not None
        assert "waiting for whoever uses the cache" in prune.stderr.readline()
        os.utime(used)
    out, _ = prune.communicate(timeout=60)
    assert out.startswith("removed 4 wheels")
    assert wheels(cache) == [used]


def test_a_sync_waits_for_a_cleaner(run_envsync: Run, cache: Path) -> None:
    """And bounds that wait, naming the process."""
    with (cache / ".lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run_envsync("sync", "--lock", LOCK, "--env", "new", "--cache-dir", cache, "--timeout", "0.5")
    assert done.returncode == 124
    assert f"gave up waiting for cache `{cache}` to be cleaned: pid {os.getpid()}" in done.stderr


def test_verify_finds_what_no_link_would(run_envsync: Run, cache: Path) -> None:
    """A file of the same size and time: named, removed, fetched again. So with what is no entry at all."""
    assert run_envsync("cache", "verify", "--cache-dir", cache).stdout == f"`{cache}`: 5 wheels verified, 0 removed\n"
    module = next(cache.glob("v1/wheels/*/purelib/greet/__init__.py"))
    status = module.stat()
    module.chmod(0o644)
    module.write_bytes(b"#" * status.st_size)
    os.utime(module, ns=(status.st_mtime_ns, status.st_mtime_ns))
    (cache / "v1" / "wheels" / "junk").mkdir()
    done = run_envsync("cache", "verify", "--cache-dir", cache)
    assert done.returncode == 1
    assert (
        "removed `greet-1.0-py3-none-any.whl`: `purelib/greet/__init__.py` is not what the wheel holds" in done.stdout
    )
    assert "removed `junk`: its manifest is missing" in done.stdout
    assert len(wheels(cache)) == 4
    found = json.loads(run_envsync("cache", "verify", "--json", "--cache-dir", cache).stdout)
    assert found == {"cache": str(cache), "wheels": 4, "removed": [], "refused": []}
    done = run_envsync("run", "--lock", LOCK, "--env", "new", "--cache-dir", cache, "-q", "--", "greet")
    assert done.stdout == "HELLO, WORLD!\n"
    assert len(wheels(cache)) == 5


class TestLinked:
    """Environments that link directories of the cache (`--link-mode symlink`) need it where it is."""

    @pytest.fixture
    def linked(self, cache: Path, tmp_path: Path, run_envsync: Run) -> Path:
        options = ("--lock", LOCK, "--env", "linked", "--cache-dir", "cache", "--link-mode", "symlink")
        run_envsync("sync", *options, check=True)
        (site,) = (tmp_path / "linked").glob("lib/*/site-packages")
        assert any(path.is_symlink() for path in site.iterdir())
        return tmp_path / "linked"

    @pytest.mark.parametrize("command", ["clean", "prune --older-than 0s", "prune --max-size 0"])
    def test_what_is_linked_stays(self, run_envsync: Run, cache: Path, linked: Path, command: str) -> None:
        """As long as the environment is there; what is not linked goes."""
        before = wheels(cache)
        run_envsync("cache", *command.split(), "--cache-dir", "cache", check=True)
        kept = wheels(cache)
        assert kept
        assert set(kept) < set(before)
        assert run_envsync("check", "--env", "linked", "--cache-dir", "cache").returncode == 0
        linked.rename(linked.with_name("moved"))
        run_envsync("cache", *command.split(), "--cache-dir", "cache", check=True)
        assert wheels(cache) == []

    def test_verify_names_it_and_leaves_it(self, run_envsync: Run, cache: Path, linked: Path) -> None:
        """Without it, the links would lead nowhere; a repair fetches it again in its place."""
        (site,) = linked.glob("lib/*/site-packages")
        link = next(path for path in site.iterdir() if path.is_symlink())
        (module,) = link.glob("__init__.py")
        module.chmod(0o644)
        module.write_bytes(b"x" * module.stat().st_size)
        done = run_envsync("cache", "verify", "--cache-dir", "cache")
        assert done.returncode == 1
        assert "environments link to it: run `envsync check --repair` in them" in done.stdout
        assert link.exists()
        repaired = run_envsync("check", "--repair", "--lock", LOCK, "--env", "linked", "--cache-dir", "cache")
        assert repaired.returncode == 0, repaired.stdout
        assert run_envsync("cache", "verify", "--cache-dir", "cache").returncode == 0


class TestAdd:
    """`cache add` fills a cache, and makes no environment."""

    ASKED = ("--lock", str(FIXTURES / "pylock.toml"))

    def test_a_sync_needs_nothing_else(self, run_envsync: Run, tmp_path: Path) -> None:
        """With the wheels out of reach, all that it takes is in the cache; and nothing was made beside it."""
        wheels = tmp_path / "wheels"
        shutil.copytree(FIXTURES / "wheels", wheels)
        lock = tmp_path / "pylock.toml"
        shutil.copy(FIXTURES / "pylock.toml", lock)
        before = set(tmp_path.iterdir())
        cache = tmp_path / "cache"
        asked = ("--lock", str(lock), "--cache-dir", str(cache))
        done = run_envsync("cache", "add", *asked, "--compile-bytecode", "--json", check=True)
        told = json.loads(done.stdout)
        assert "greet==1.0" in told["wheels"]
        assert told["cache"] == str(cache)
        assert set(tmp_path.iterdir()) - before == {cache}
        assert os.listdir(cache / "v1/tmp") == []
        shutil.rmtree(wheels)
        entries = set((cache / "v1/wheels").iterdir())
        compiled = set((cache / "v1/bytecode").iterdir())
        assert compiled
        run_envsync("sync", *asked, "--offline", "--compile-bytecode", "--env", "env", check=True)
        assert set((cache / "v1/wheels").iterdir()) == entries
        assert set((cache / "v1/bytecode").iterdir()) == compiled

    def test_again_is_nothing(self, run_envsync: Run, tmp_path: Path) -> None:
        """What is there is left as it is; it is said in one line."""
        first = run_envsync("cache", "add", *self.ASKED, check=True)
        again = run_envsync("cache", "add", *self.ASKED, check=True)
        assert first.stdout == again.stdout
        assert "wheels of" in again.stdout
        assert run_envsync("cache", "add", *self.ASKED, "--quiet", check=True).stdout == ""

    def test_a_damaged_entry_is_got_again(self, run_envsync: Run, cache: Path) -> None:
        """If its bytecode is wanted, for then all sources are read."""
        module = next(cache.glob("v1/wheels/*/purelib/greet/__init__.py"))
        content = module.read_bytes()
        os.chmod(module, 0o600)
        module.write_bytes(b"#" + content)
        run_envsync("cache", "add", *self.ASKED, "--compile-bytecode", "--cache-dir", str(cache), check=True)
        assert next(cache.glob("v1/wheels/*/purelib/greet/__init__.py")).read_bytes() == content

    def test_a_cache_that_cannot_be_written(self, run_envsync: Run, tmp_path: Path) -> None:
        """That is an error here: there is nothing else to be done."""
        (tmp_path / "file").touch()
        done = run_envsync("cache", "add", *self.ASKED, "--cache-dir", str(tmp_path / "file"))
        assert done.returncode == 125
        assert "hint:" in done.stderr

    def test_a_failure_keeps_what_was_added(self, run_envsync: Run, tmp_path: Path) -> None:
        """A wheel that is not what the lock file says costs the others nothing."""
        lock = tmp_path / "requirements.txt"
        good = FIXTURES / "wheels/tally-1.0-py3-none-any.whl"
        digest = hashlib.sha256(good.read_bytes()).hexdigest()
        lock.write_text(
            f"{good} --hash=sha256:{digest}\n{FIXTURES}/wheels/greet-1.0-py3-none-any.whl --hash=sha256:{'0' * 64}\n"
        )
        done = run_envsync("cache", "add", "--lock", str(lock), "--cache-dir", str(tmp_path / "cache"))
        assert done.returncode == 125
        assert "greet" in done.stderr
        assert os.listdir(tmp_path / "cache/v1/tmp") == []

    def test_what_is_linked_to_its_tree_is_left(self, run_envsync: Run, tmp_path: Path) -> None:
        """An editable wheel has a path in it; without `--editable`, it is built for all."""
        project = make_project(tmp_path / "app", "app")
        (project / "uv.lock").write_text(
            'version = 1\nrevision = 3\nrequires-python = ">=3.9"\n\n[[package]]\nname = "app"\nversion = "1.0"\n'
            'source = { editable = "." }\n'
        )
        asked = ("cache", "add", "--cache-dir", str(tmp_path / "cache"))
        done = run_envsync(*asked, cwd=project, check=True)
        assert "left to each environment: app" in done.stdout
        told = json.loads(run_envsync(*asked, "--no-editable", "--json", cwd=project, check=True).stdout)
        assert (told["wheels"], told["left"]) == (["app==1.0"], [])
        assert not (project / ".venv").exists()
