"""What environments link to in a cache (`--link-mode symlink`), and what else is done with that cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.cli import cache as cache_commands
from envsync.errors import FilesystemError
from envsync.store import users
from envsync.store.inventory import CacheItem
from envsync.system import processes
from tests import needs
from tests.conftest import envsync_command
from tests.environments import site_packages, unverified
from tests.needs import IS_ROOT
from tests.rooms.inside import as_user, words
from tests.unit.transaction.test_symlink import ALPHA, Project, run
from tests.wheels import sha256_of

ANN, BEN, GROUP = 12345, 12346, 4321
needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.wheel("alpha", ALPHA)
    return project


def change_keeping_the_time(path: Path) -> None:
    status = path.stat()
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@needs_root
class TestDamaged:
    """Of an entry that cannot be had again, what is there stays: environments would lose whole packages."""

    def test_by_a_repair(self, project: Project) -> None:
        project.sync()
        other, project.env = project.env, project.root / "next"
        project.sync()
        change_keeping_the_time(project.site / "alpha" / "sub" / "deep.py")
        lock = project.lock
        os.unlink(project.wheels["alpha"])
        for more in (("--lock", str(lock)), ()):
            options = ("--env", str(project.env), "--cache-dir", str(project.cache))
            assert run("check", "--repair", *more, *options).returncode == 125
            for env in (other, project.env):
                assert (site_packages(env) / "alpha" / "__init__.py").is_file()
        assert os.listdir(project.cache / "v1" / "tmp") == []

    def test_by_a_sync(self, project: Project) -> None:
        project.sync()
        os.utime(project.site / "alpha" / "sub" / "deep.py")
        other, lock = project.env, project.lock
        os.unlink(project.wheels["alpha"])
        options = ("--env", str(project.root / "next"), "--cache-dir", str(project.cache), "--link-mode", "symlink")
        assert run("sync", "--lock", str(lock), *options).returncode == 125
        assert (site_packages(other) / "alpha" / "__init__.py").is_file()

    def test_that_has_a_file_too_many_is_fetched_again_by_a_repair(self, project: Project) -> None:
        """From where the lock file says; without one, that is what is said, and nothing is lost."""
        project.sync()
        (project.site / "alpha" / "foreign.py").write_text("")
        next(project.site.glob("alpha-*/RECORD")).unlink()
        options = ("--env", str(project.env), "--cache-dir", str(project.cache), "--link-mode", "symlink")
        done = run("check", "--repair", *options)
        assert done.returncode == 125
        assert "--repair --lock pylock.toml`" in done.stderr
        assert project.python("import alpha.sub.deep as d; print(d.x)") == "1"
        assert project.check("--repair").returncode == 0
        assert not (project.site / "alpha" / "foreign.py").exists()

    def test_what_nobody_links_is_discarded(self, project: Project) -> None:
        project.sync("copy")
        (entry,) = (project.cache / "v1" / "wheels").iterdir()
        os.utime(entry / "purelib" / "alpha" / "sub" / "deep.py")
        lock = project.lock
        os.unlink(project.wheels["alpha"])
        options = ("--env", str(project.root / "next"), "--cache-dir", str(project.cache), "--link-mode", "symlink")
        assert run("sync", "--lock", str(lock), *options).returncode == 125
        assert not entry.exists()


def test_a_cache_that_was_made_read_only(project: Project) -> None:
    """By its owner, with chmod: nothing in it has changed, so it is linked, and nothing is fetched again."""
    project.sync("hardlink")
    subprocess.run(["chmod", "-R", "a-w", str(project.cache)], check=True)
    project.env = project.root / "next"
    result = project.sync()
    subprocess.run(["chmod", "-R", "u+w", str(project.cache)], check=True)
    assert not any("fetched again" in note for note in result.notes)
    assert project.is_linked("alpha")
    assert project.check().returncode == 0


@needs_root
def test_somebody_else_s_directories_are_not_linked(project: Project) -> None:
    """Their owner could change at any time what root runs: as with hard links, root gets copies."""
    project.sync("hardlink")
    for directory, names, files in os.walk(project.cache):
        for name in (*names, *files):
            os.chown(os.path.join(directory, name), ANN, ANN)
    project.env = project.root / "next"
    result = project.sync()
    assert not project.is_linked("alpha")
    assert any("same owner" in note for note in result.notes)
    assert unverified(project.env) == []


def test_uv_finds_the_link_before_what_is_in_it(project: Project) -> None:
    """Also if names in it have to be quoted in RECORD: as root it would remove them from the store."""
    project.wheel("comma", {"comma/__init__.py": "", "comma/a,b.txt": "x", "comma/z.py": ""})
    project.sync()
    record = (project.site / "comma-1.0.dist-info" / "RECORD").read_text()
    assert record.startswith("comma,,\n")
    assert project.check().returncode == 0
    if shutil.which("uv") is None:
        pytest.skip("needs uv")
    before = project.store_files()
    python = str(project.env / "bin" / "python")
    subprocess.run(["uv", "pip", "uninstall", "--python", python, "comma"], check=True, capture_output=True)
    assert project.store_files() == before


class TestReferences:
    def test_a_fallback_is_told_where_the_cache_cannot_be(self, project: Project) -> None:
        if os.getuid() != 0:
            pytest.skip("needs root to mount it read-only")
        project.sync("hardlink")
        project.wheel("beta", {"beta/__init__.py": ""})
        project.env = project.root / "next"
        place, fallback = str(project.cache), str(project.root / "fallback")
        bind = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        sync = ("sync", "--lock", str(project.lock), "--link-mode", "symlink")
        more = ("--env", str(project.env), "--cache-dir", place, "--cache-fallback", fallback)
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", bind, place, *envsync_command(), *sync, *more],
            check=False,
            capture_output=True,
            text=True,
        )
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(done.stderr)
        assert done.stderr.count("the cache was not told") == 1
        assert project.is_linked("beta")
        assert sha256_of(project.wheels["beta"]) in users.used(fallback)

    def test_two_containers_with_environments_of_one_path(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither takes the other's reference for its own."""
        project.sync()
        used = users.used(str(project.cache))
        with monkeypatch.context() as patch:
            patch.setattr(processes, "host", lambda: "elsewhere")
            project.env.rename(project.root / "theirs")
            project.wheel("alpha", ALPHA, version="2.0")
            project.sync()
            both = used | {sha256_of(project.wheels["alpha"])}
            assert users.used(str(project.cache)) == both
        shutil.rmtree(project.env)
        (project.root / "theirs").rename(project.env)
        assert users.used(str(project.cache)) == both

    def test_another_host_has_changed_the_very_same_environment(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it says now counts, and what this one has said does not."""
        project.sync()
        monkeypatch.setattr(processes, "host", lambda: "elsewhere")
        project.wheel("alpha", ALPHA, version="2.0")
        project.sync()
        assert users.used(str(project.cache)) == {sha256_of(project.wheels["alpha"])}

    @needs.PROC
    def test_after_a_reboot(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its disk may not be mounted yet. Once it is synced again, that alone counts."""
        project.sync()
        used = users.used(str(project.cache))
        with monkeypatch.context() as patch:
            patch.setattr(processes, "boot", lambda: "the next one")
            project.env.rename(project.root / "unmounted")
            assert users.used(str(project.cache), drop=True) == used
            (project.root / "unmounted").rename(project.env)
            project.wheel("alpha", ALPHA, version="2.0")
            project.sync()
            assert users.used(str(project.cache)) == {sha256_of(project.wheels["alpha"])}
            assert len(list((project.cache / "v1" / "users").iterdir())) == 1
            shutil.rmtree(project.env)
            assert users.used(str(project.cache)) == set()

    @needs.PROC
    def test_an_in_use_lock_that_a_launch_has_renewed(self, project: Project) -> None:
        """The environment is the same, and used more than ever."""
        in_use = project.env / ".envsync" / "in-use"
        project.sync()
        (reference,) = (project.cache / "v1" / "users").iterdir()
        used = users.used(str(project.cache))
        value = json.loads(reference.read_text())
        value["in-use"][1] -= 2 * 86400 * 10**9
        reference.write_text(json.dumps(value))
        assert in_use.stat().st_mtime_ns > value["in-use"][1]
        assert users.used(str(project.cache), drop=True) == used != set()
        os.utime(in_use, (1, 1))
        assert users.used(str(project.cache)) == set()

    def test_a_reference_of_an_earlier_version(self, project: Project) -> None:
        """It does not say who wrote it, so nobody may take it for their own."""
        project.sync()
        used = users.used(str(project.cache))
        (reference,) = (project.cache / "v1" / "users").iterdir()
        kept = ("format", "env", "host", "in-use", "entries")
        value = json.loads(reference.read_text())
        reference.write_text(json.dumps({name: value[name] for name in kept}))
        project.env.rename(project.root / "moved")
        assert users.used(str(project.cache)) == used
        os.utime(reference, (0, 0))
        assert users.used(str(project.cache)) == set()

    @needs_root
    @pytest.mark.parametrize("rebooted", [False, True])
    def test_one_that_must_not_be_looked_at_counts(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, *, rebooted: bool
    ) -> None:
        """However long ago it was synced, and before which boot: another user's home is private."""
        home = project.root / "home"
        home.mkdir()
        project.env = home / "env"
        if rebooted:
            monkeypatch.setattr(processes, "boot", lambda: "the one before")
        project.sync()
        (reference,) = (project.cache / "v1" / "users").iterdir()
        os.utime(reference, (0, 0))
        project.root.chmod(0o755)
        home.chmod(0o700)
        code = f"from envsync.store import users; print(users.used({str(project.cache)!r}))"
        python, option, *rest = envsync_command()
        where = rest[0].partition("from")[0] if option == "-c" else ""  # else it is installed
        start = [python, "-c", where + code]
        done = as_user(BEN, start, cwd=project.root)
        assert sha256_of(project.wheels["alpha"]) in done.stdout, done.stderr

    def test_what_is_linked_while_prune_looks_stays(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between its look at who links what and its look at the entries, or while it waits."""
        project.sync("copy")
        inventory = cache_commands.inventory

        def look(root: str) -> list[CacheItem]:
            project.env = project.root / "next"
            project.sync()
            return list(inventory(root))

        monkeypatch.setattr(cache_commands, "inventory", look)
        cache_commands.prune({"cache_dir": str(project.cache), "older_than": "0s"})
        assert (project.site / "alpha" / "__init__.py").is_file()


def cache(project: Project) -> tuple[str, str]:
    return ("--cache-dir", str(project.cache))


@needs_root
class TestGroup:
    @pytest.fixture
    def shared(self, project: Project) -> Project:
        """A cache of mode 2770, and a directory of their own for each of two users."""
        project.root.chmod(0o755)
        project.cache.mkdir()
        os.chown(project.cache, ANN, GROUP)
        project.cache.chmod(0o2770)
        for user in (ANN, BEN):
            (project.root / str(user)).mkdir()
            os.chown(project.root / str(user), user, user)
        return project

    @pytest.fixture(params=["022", "077"])
    def as_member(self, shared: Project, request: pytest.FixtureRequest) -> Callable[..., str]:
        def run(user: int, *arguments: str) -> str:
            done = as_user(user, words(*arguments, *cache(shared)), cwd=shared.root, group=GROUP, umask=request.param)
            assert done.returncode == 0, done.stderr
            return done.stdout + done.stderr

        return run

    def sync(self, shared: Project, as_member: Callable[..., str], user: int) -> Path:
        env = shared.root / str(user) / "env"
        as_member(user, "sync", "--lock", str(shared.lock), "--env", str(env), "--link-mode", "symlink")
        return site_packages(env)

    def test_what_one_links_the_other_does_not_prune(self, shared: Project, as_member: Callable[..., str]) -> None:
        """Whatever their umasks: the references of both can be written and read by both."""
        anns = self.sync(shared, as_member, ANN)
        shared.wheel("beta", {"beta/__init__.py": ""})
        bens = self.sync(shared, as_member, BEN)
        assert (anns / "alpha").is_symlink()
        assert (bens / "beta").is_symlink()
        for user in (ANN, BEN):
            as_member(user, "cache", "prune", "--older-than", "0s")
            assert (anns / "alpha" / "__init__.py").is_file()
            assert (bens / "beta" / "__init__.py").is_file()

    @needs.PROC
    def test_one_cleans_what_the_other_has_sealed(self, shared: Project, as_member: Callable[..., str]) -> None:
        """It is out of the way, and that its owner alone can free the disk is said."""
        self.sync(shared, as_member, ANN)
        shutil.rmtree(shared.root / str(ANN) / "env")
        (reference,) = (shared.cache / "v1" / "users").iterdir()
        os.utime(reference, (1, 1))  # each command has a mount namespace of its own here, so it counts for 30 days
        told = as_member(BEN, "cache", "clean")
        assert os.listdir(shared.cache / "v1" / "wheels") == []
        assert "only its owner can remove" in told
        assert (self.sync(shared, as_member, BEN) / "alpha").is_symlink()
        as_member(ANN, "cache", "clean")
        assert os.listdir(shared.cache / "v1" / "tmp") == []

    def test_what_is_used_cannot_be_found_out(self, shared: Project, as_member: Callable[..., str]) -> None:
        """Then nothing is removed."""
        anns = self.sync(shared, as_member, ANN)
        (shared.cache / "v1" / "users").chmod(0o700)
        for command in (("prune", "--older-than", "0s"), ("clean",)):
            done = as_user(BEN, words("cache", *command, *cache(shared)), cwd=shared.root, group=GROUP)
            assert done.returncode == FilesystemError.exit_code
            assert "users" in done.stderr
        assert (anns / "alpha" / "__init__.py").is_file()


def test_a_link_of_who_stays_is_not_taken_away(project: Project) -> None:
    """If another has to come into a linked directory, and the cache lacks the wheel: that is said before anything."""
    project.sync()
    project.wheels.clear()
    project.wheel("plugin", {"alpha/plugins/extra.py": "y = 2\n"})
    options = ("--lock", str(project.lock), "--env", str(project.env), "--link-mode", "symlink", "--inexact")
    done = run("sync", *options, "--cache-dir", str(project.root / "another"))
    assert done.returncode == 125
    assert "alpha" in done.stderr
    assert project.python("import alpha.sub.deep as d; print(d.x)") == "1"
    assert run("sync", *options, *cache(project)).returncode == 0
    assert project.python("import alpha.sub.deep as d, alpha.plugins.extra as e; print(d.x, e.y)") == "1 2"


def test_verify_compares_bytecode_too(project: Project) -> None:
    """Bytecode of the same size and time would be linked into every environment."""
    project.sync("copy", compile_bytecode=True)
    assert run("cache", "verify", *cache(project)).returncode == 0
    change_keeping_the_time(next((project.cache / "v1" / "bytecode").rglob("deep.*.pyc")))
    done = run("cache", "verify", *cache(project))
    assert done.returncode == 1
    assert "deep." in done.stdout
    project.env = project.root / "next"
    project.sync("copy", compile_bytecode=True)
    assert project.check().returncode == 0
    assert run("cache", "verify", *cache(project)).returncode == 0
