"""Directories of other users, and what the umask makes of ours."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from tests.environments import FIXTURES, files, leftovers, site_packages, unowned, unverified
from tests.rooms.inside import as_user, output, words

LOCK = FIXTURES / "pylock.toml"
NOBODY, SOMEBODY, GROUP = 65534, 12345, 4321


def options_in(shared: Path, lock: str = "pylock.toml") -> list[str | Path]:
    work = shared / "work"
    return ["--lock", shared / "fixtures" / lock, "--env", work / "env", "--cache-dir", work / "cache"]


def test_a_directory_of_somebody_else_s(shared: Path) -> None:
    """An environment that may be read but not written runs if it is current, and is refused if it is not."""
    done = as_user(SOMEBODY, words("sync", *options_in(shared)), cwd=shared)
    assert done.returncode == 0, done.stderr
    before = files(shared / "work" / "env")
    done = as_user(NOBODY, words("run", *options_in(shared), "--", "greet"), cwd=shared)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    done = as_user(NOBODY, words("sync", *options_in(shared, "pylock.next.toml")), cwd=shared)
    assert done.returncode == 125
    assert "Permission denied" in done.stderr
    assert str(shared / "work" / "env") in done.stderr
    assert files(shared / "work" / "env") == before


def test_a_place_where_nothing_may_be_made(shared: Path) -> None:
    """An environment in somebody else's directory cannot be made: that one is named."""
    done = as_user(NOBODY, words("sync", "--lock", LOCK, "--env", shared / "new"), cwd=shared)
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
    """Directories, and files of the environment's own, are as private as the umask says. Linked ones are the cache's:
    who may get at them is said by the directories, and nobody may write to them."""
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
        assert found["modules"] <= {0o444, 0o555, 0o666 & ~taken}


@pytest.mark.parametrize("umask", ["002", "077"])
def test_two_users_of_one_group(shared: Path, umask: str) -> None:
    """With umask 002 and a directory of the group's, one upgrades what the other made; with 077, it is refused."""
    work = shared / "work"
    os.chown(work, -1, GROUP)
    work.chmod(0o2775)
    done = as_user(SOMEBODY, words("sync", *options_in(shared)), group=GROUP, umask=umask, cwd=shared)
    assert done.returncode == 0, done.stderr
    upgrade = words("run", *options_in(shared, "pylock.next.toml"), "-q", "--", "greet")
    done = as_user(NOBODY, upgrade, group=GROUP, umask=umask, cwd=shared)
    if umask == "077":
        assert done.returncode == 125
        assert "Permission denied" in done.stderr
        return
    assert (done.returncode, done.stdout) == (0, "HOWDY, PARTNER!\n"), done.stderr
    back = words("run", *options_in(shared), "-q", "--", "greet")
    done = as_user(SOMEBODY, back, group=GROUP, umask=umask, cwd=shared)
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
    assert unverified(work / "env") == []
    assert unowned(work / "env") == set()
    assert leftovers(work / "env") == []


def test_environments_of_somebody_else_are_not_removed(shared: Path) -> None:
    """Whoever asks, and whatever the directories allow: root, and one who may write beside them. Their owner may."""
    template = shared / "work/envs/{digest}"
    made = ["--lock", shared / "fixtures/pylock.toml", "--env", template, "--cache-dir", shared / "work/cache"]
    done = as_user(SOMEBODY, words("sync", *made), cwd=shared)
    assert done.returncode == 0, done.stderr
    (environment,) = (path for path in (shared / "work/envs").iterdir() if not path.name.startswith("."))
    (shared / "work/envs").chmod(0o777)
    trash = shared / "work/envs/.envsync-trash.1"
    trash.mkdir()
    os.chown(trash, SOMEBODY, SOMEBODY)
    before = files(environment)
    prune = words("env", "prune", template, "--yes", "--verbose")
    for done in (output(prune), as_user(NOBODY, prune, cwd=shared)):
        assert done.returncode == 0, done.stderr
        assert "removed 0 environments" in done.stdout
    remove = words("env", "remove", environment)
    for done in (output(remove), as_user(NOBODY, remove, cwd=shared)):
        assert done.returncode == 1
        assert "it belongs to another user (12345)" in done.stderr
    assert (files(environment), unverified(environment)) == (before, [])
    assert trash.is_dir()
    done = as_user(SOMEBODY, prune, cwd=shared)
    assert "removed 1 environment," in done.stdout, done.stderr
    assert os.listdir(shared / "work/envs") == []


class TestACacheOfRoots:
    """Root fills it; users who do not trust each other link to it, and cannot say so."""

    @pytest.fixture
    def place(self, shared: Path) -> Path:
        done = as_user(0, words("cache", "add", *self.lock(shared), "--cache-dir", shared / "cache"), cwd=shared)
        assert done.returncode == 0, done.stderr
        return shared

    def lock(self, place: Path) -> list[str | Path]:
        return ["--lock", place / "fixtures/pylock.toml"]

    def asked(self, place: Path, user: int) -> list[str | Path]:
        env = place / f"work/env-{user}"
        return [*self.lock(place), "--cache-dir", place / "cache", "--env", env, "--link-mode", "symlink"]

    def greet(self, place: Path) -> Path:
        """The entry that has the package."""
        return next((place / "cache/v1/wheels").glob("*/purelib/greet")).parent.parent

    def cache(self, place: Path, *words_of: str) -> str:
        done = as_user(0, words("cache", *words_of, "--cache-dir", place / "cache"), cwd=place)
        assert done.returncode == 0, done.stderr
        return done.stderr + done.stdout

    def test_nothing_but_links_and_no_note(self, place: Path) -> None:
        """Each user's directories are links into it, and that is what was asked for."""
        for user in (NOBODY, SOMEBODY):
            done = as_user(user, words("sync", *self.asked(place, user)), cwd=place)
            assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
            assert (
                site_packages(place / f"work/env-{user}").joinpath("greet").readlink().is_relative_to(place / "cache")
            )
            assert not (place / "cache/v1/users").exists()

    def test_prune_and_clean_leave_what_others_may_link_to(self, place: Path) -> None:
        """Unless nobody has read it for as long as is said."""
        before = sorted((place / "cache/v1/wheels").iterdir())
        assert "cannot say so" in self.cache(place, "prune", "--older-than", "0s")
        assert "cannot say so" in self.cache(place, "prune", "--max-size", "0")
        assert "cannot say so" in self.cache(place, "clean")
        assert "cannot say so" not in self.cache(place, "prune", "--unused-for", "90d")
        assert sorted((place / "cache/v1/wheels").iterdir()) == before
        ago = time.time() - 100 * 86400
        for entry in before:
            for path in (entry, *entry.rglob("*")):
                os.utime(path, (ago, path.stat().st_mtime if path != entry else ago))
        (
            self.greet(place) / "purelib/greet/__init__.py"
        ).read_bytes()  # as who imports it does: noted, for it is a day ago
        assert "removed" in self.cache(place, "prune", "--unused-for", "90d")
        assert sorted((place / "cache/v1/wheels").iterdir()) == [self.greet(place)]

    def test_an_environment_whose_entries_are_gone_is_not_current(self, place: Path) -> None:
        """Nor is one while entries come, until all of its own were looked at."""
        asked = self.asked(place, SOMEBODY)
        assert as_user(SOMEBODY, words("sync", *asked), cwd=place).returncode == 0
        status = words("status", "--exit-code", *asked[:-2])
        assert as_user(SOMEBODY, status, cwd=place).returncode == 0
        shutil.rmtree(self.greet(place))
        assert as_user(SOMEBODY, status, cwd=place).returncode == 1
        done = as_user(SOMEBODY, words("run", *asked, "--", "greet"), cwd=place)
        assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n"), done.stderr
        assert as_user(SOMEBODY, status, cwd=place).returncode == 0
        (place / "cache/v1/wheels" / ("0" * 64)).mkdir()
        assert as_user(SOMEBODY, status, cwd=place).returncode == 1
        assert as_user(SOMEBODY, words("sync", *asked), cwd=place).returncode == 0
        assert as_user(SOMEBODY, status, cwd=place).returncode == 0

    @pytest.mark.parametrize("text", ["1h", "1d", "soon"])
    def test_less_than_is_noted_is_refused(self, place: Path, text: str) -> None:
        """A filesystem notes once a day that a file was read."""
        done = as_user(0, words("cache", "prune", "--unused-for", text, "--cache-dir", place / "cache"), cwd=place)
        assert done.returncode == 2
        assert "--unused-for" in done.stderr
