"""What programs may call to look after environments and caches: the same as the commands, without their words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import envsync
from envsync.errors import FilesystemError, LockFileError, NoEnvironmentError, UsageError
from tests import needs
from tests.environments import FIXTURES, unverified
from tests.needs import IS_ROOT

LOCK, NEXT = FIXTURES / "pylock.toml", FIXTURES / "pylock.next.toml"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobodys_home: Path) -> Path:
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestStatus:
    @needs.PROC
    def test_for_a_lock_file(self, tmp_path: Path) -> None:
        """Whether it is current, why not, and who runs in it."""
        env = tmp_path / "env"
        envsync.sync(LOCK, env=env)
        assert envsync.status(LOCK, env=env).current is True
        stale = envsync.status(NEXT, env=env)
        assert stale.current is False
        assert stale.reason
        with envsync.use(LOCK, env=env):
            assert os.getpid() in [command.pid for command in envsync.status(LOCK, env=env).commands]
        assert envsync.status(LOCK, env=env).commands == ()

    def test_without_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment is what is named; with neither, there is nothing to look at."""
        monkeypatch.chdir(tmp_path)
        envsync.sync(LOCK, env="env")
        found = envsync.status(env="env")
        assert (found.env, found.current) == (str(tmp_path / "env"), None)
        with pytest.raises(UsageError):
            envsync.status()
        with pytest.raises(LockFileError):
            envsync.status("missing.toml", env="env")

    def test_it_changes_nothing(self, tmp_path: Path) -> None:
        envsync.status(LOCK, env=tmp_path / "env")
        assert not (tmp_path / "env").exists()


class TestCheck:
    def test_a_repair(self, tmp_path: Path) -> None:
        """What is damaged is found, restored where that is asked for, and reported on the way."""
        env = tmp_path / "env"
        envsync.sync(LOCK, env=env, link_mode="copy")
        assert envsync.check(LOCK, env=env).is_sound
        (file,) = env.glob("lib/python*/site-packages/greet/__init__.py")
        file.chmod(0o644)
        file.write_text("changed\n")
        found = envsync.check(LOCK, env=env)
        assert not found.is_sound
        assert [Path(env, finding.path) for finding in found.found.findings] == [file]
        assert file.read_text() == "changed\n", "nobody has asked for it"
        told: list[str] = []
        mended = envsync.check(env=env, repair_damage=True, report=lambda phase, *_: told.append(phase))
        assert mended.is_sound
        assert [name.partition("==")[0] for name in mended.repaired] == ["greet"]
        assert told
        assert unverified(env) == []

    def test_nothing_to_check(self, tmp_path: Path) -> None:
        with pytest.raises(NoEnvironmentError):
            envsync.check(LOCK, env=tmp_path / "env")


class TestEnvironments:
    @pytest.fixture
    def template(self, tmp_path: Path) -> str:
        template = f"{tmp_path}/venvs/{{digest}}"
        for lock in (LOCK, NEXT):
            envsync.sync(lock, env=template)
        return template

    def test_what_there_is(self, template: str, run_envsync: Run) -> None:
        """The same as `env list` says."""
        found = envsync.list_environments(template, sizes=True)
        assert len(found) == 2
        assert all(each.current and each.size and each.size.files > 0 for each in found)
        assert time.time() - 60 < min(each.made for each in found)
        said = json.loads(run_envsync("env", "list", template, "--json").stdout)["environments"]
        assert {each["path"] for each in said} == {each.path for each in found}

    def test_who_is_used_stays(self, template: str) -> None:
        """And the other one goes; a dry run removes none."""
        found = envsync.list_environments(template)
        assert [each.kept for each in envsync.remove_environments(found, dry_run=True)] == ["", ""]
        assert all(Path(each.path).exists() for each in found)
        with envsync.use(LOCK, env=template) as hold:
            removed = {each.path: each for each in envsync.remove_environments(envsync.list_environments(template))}
            assert removed[hold.result.env].kept
            assert Path(hold.result.env).exists()
            (gone,) = [each for each in removed.values() if not each.kept]
            assert gone.size.files > 0
            assert not Path(gone.path).exists()
        assert [each.path for each in envsync.list_environments(template)] == [hold.result.env]

    def test_one_that_was_used_since_stays(self, template: str) -> None:
        """Made anew since it was listed, it is another one."""
        found = envsync.list_environments(template)
        envsync.remove_environments(found)
        envsync.sync(LOCK, env=template)
        again = envsync.remove_environments(found)
        assert [each.kept != "" for each in again] == [True]
        assert len(envsync.list_environments(template)) == 1

    def test_no_template(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            envsync.list_environments(tmp_path / "env")


class TestCache:
    def test_from_empty_to_empty(self, tmp_path: Path, cache: Path, run_envsync: Run) -> None:
        """Filled without an environment, listed, and pruned by age and size."""
        assert envsync.cache_directory() == str(cache)
        assert envsync.cache_directory(tmp_path / "other") == str(tmp_path / "other")
        assert envsync.cache_contents() == []
        assert envsync.prune_cache() == []
        added = envsync.add_to_cache(LOCK)
        assert added.cache == str(cache)
        wheels = [item for item in envsync.cache_contents() if item.kind == "wheels"]
        assert len(wheels) == len(added.wheels) > 0
        assert envsync.prune_cache() == []
        would = envsync.prune_cache(max_size=0, dry_run=True)
        assert {item.name for item in would} >= {item.name for item in wheels}
        assert {item.name for item in envsync.cache_contents()} >= {item.name for item in would}
        gone = envsync.prune_cache(older_than=0.0)
        assert {item.name for item in gone} >= {item.name for item in wheels}
        assert envsync.cache_contents() == []
        assert json.loads(run_envsync("cache", "size", "--json").stdout)["all"]["wheels"] == 0

    @pytest.mark.skipif(IS_ROOT, reason="root may remove anything")
    def test_what_cannot_be_removed_is_said(self, cache: Path) -> None:
        envsync.add_to_cache(LOCK)
        (cache / "v1" / "wheels").chmod(0o555)
        try:
            with pytest.raises(FilesystemError):
                envsync.prune_cache(older_than=0.0)
        finally:
            (cache / "v1" / "wheels").chmod(0o755)


def test_names_are_there_before_they_are_imported() -> None:
    """`dir` and `from envsync import *` name all of them, and each can be had."""
    code = (
        "import sys, envsync; before = set(sys.modules); names = dir(envsync);"
        "assert names == envsync.__all__ and set(sys.modules) == before;"
        "missing = [name for name in names if not hasattr(envsync, name)]; assert not missing, missing;"
        "functions = [name for name in names if name[0].islower()];"
        "assert {getattr(envsync, name).__module__ for name in functions} == {'envsync'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
