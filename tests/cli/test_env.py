"""`envsync env`: what a person types and sees."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.conftest import envsync_command
from tests.crash.harness import KILLS, Kind, strike
from tests.environments import FIXTURES, unverified

LOCK, NEXT = str(FIXTURES / "pylock.toml"), str(FIXTURES / "pylock.next.toml")
Run = Callable[..., CompletedProcess[str]]
TEMPLATE = "envs/{digest}"
FORTY_DAYS = 40 * 86400


def old(environment: Path, seconds: float = FORTY_DAYS) -> None:
    """Let an environment not have been used for so long."""
    os.utime(environment / ".envsync/in-use", (time.time() - seconds,) * 2)


@pytest.fixture
def two(tmp_path: Path, run_envsync: Run) -> list[Path]:
    """Environments of two lock files; the first was not used for long."""
    made = []
    for lock in (LOCK, NEXT):
        done = run_envsync("sync", "--lock", lock, "--env", TEMPLATE, "--json", check=True)
        made.append(Path(json.loads(done.stdout)["env"]))
    old(made[0])
    return made


@pytest.fixture
def answer(run_envsync: Run) -> Callable[..., dict[str, Any]]:
    """Run `envsync env`, and return what it says in JSON."""

    def ask(*words: str, status: int = 0, **options: Any) -> dict[str, Any]:
        done = run_envsync("env", *words, "--json", **options)
        assert done.returncode == status, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    return ask


Answer = Callable[..., dict[str, Any]]


def paths(said: list[dict[str, Any]]) -> list[Path]:
    return [Path(each["path"]) for each in said]


class TestLooking:
    """`list` and `show`."""

    def test_list(self, two: list[Path], run_envsync: Run) -> None:
        """A line each, what was used least lately first."""
        done = run_envsync("env", "list", TEMPLATE)
        assert (done.returncode, done.stderr) == (0, "")
        head, *lines = done.stdout.splitlines()
        assert head.split() == ["used", "made", "frees", "all", "state", "lock", "file", "environment"]
        assert [Path(line.split()[-1]) for line in lines] == two
        assert lines[0].lstrip().startswith("40 d")
        assert lines[1].lstrip().startswith("<1 d")
        assert " current     pylock.next.toml " in lines[1]

    def test_without_sizes(self, two: list[Path], answer: Answer) -> None:
        """They take a look at each file."""
        assert [each["files"] for each in answer("list", TEMPLATE, "--no-size")["environments"]] == [None, None]
        assert all(each["files"] > 40 for each in answer("list", TEMPLATE)["environments"])

    @pytest.mark.parametrize("where", ["a variable", "the project", "the user"])
    def test_the_template_that_is_meant_here(
        self, two: list[Path], answer: Answer, tmp_path: Path, nobodys_home: Path, where: str
    ) -> None:
        """Whatever says what `--env` is."""
        variables = {}
        if where == "a variable":
            variables["ENVSYNC_ENV"] = TEMPLATE
        elif where == "the project":
            (tmp_path / "pyproject.toml").write_text(f'[tool.envsync]\nenv = "{TEMPLATE}"\n')
        else:
            (nobodys_home / ".config").mkdir()
            (nobodys_home / ".config/envsync.toml").write_text(f'env = "{tmp_path}/envs/{{digest}}"\n')
        assert paths(answer("list", env=variables)["environments"]) == two

    def test_other_placeholders(self, answer: Answer, run_envsync: Run, tmp_path: Path) -> None:
        """Those for user and host are filled, and a home is found."""
        template = "~/of {user}/py{python}-{digest}/venv/"
        variables = {"HOME": str(tmp_path), "LOGNAME": "me"}
        run_envsync("sync", "--lock", LOCK, "--env", template, check=True, env=variables)
        (found,) = answer("list", template, env=variables)["environments"]
        assert re.fullmatch(rf"{tmp_path}/of me/py3\.\d+-[0-9a-f]{{32}}/venv", found["path"])
        done = answer("prune", template, "--yes", env=variables)
        assert len(done["removed"]) == 1
        assert os.listdir(tmp_path / "of me") == []

    def test_show(self, two: list[Path], run_envsync: Run) -> None:
        """All that is known of one."""
        done = run_envsync("env", "show", str(two[0]))
        assert f"`{two[0]}` is current" in done.stdout
        assert f"digest {two[0].name}, lock file pylock.toml, Python cpython 3." in done.stdout
        assert "used 40 d ago" in done.stdout
        assert "could be removed now" in done.stdout

    def test_who_runs(self, two: list[Path], answer: Answer) -> None:
        """By pid and command."""
        with subprocess.Popen(
            [*envsync_command(), "run", "--lock", LOCK, "--env", TEMPLATE, "--", "sh", "-c", "echo; read x"],
            cwd=two[0].parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as command:
            assert command.stdout is not None
            command.stdout.readline()
            (shown,) = answer("show", str(two[0]))["environments"]
            assert [each["pid"] for each in shown["commands"]] == [command.pid]
            command.communicate(b"\n")

    @pytest.mark.parametrize("template", [".venv", "", "envs"])
    def test_what_is_no_template(self, run_envsync: Run, template: str) -> None:
        """A project's `.venv` is nobody's to list, and even less to prune."""
        for words in (("list", "--json"), ("prune", "--yes")):
            done = run_envsync("env", *words, *([template] if template else []))
            assert done.returncode == 2
            assert "envsync env list '.venvs/{digest}'" in done.stderr

    def test_none(self, run_envsync: Run) -> None:
        """Says so."""
        assert run_envsync("env", "list", "none/{digest}").stdout == "there are no environments `none/{digest}`\n"


class TestPruning:
    """`prune` and `remove`."""

    def test_by_age(self, two: list[Path], answer: Answer, run_envsync: Run) -> None:
        """What was not used for so long; the other one is as it was."""
        assert paths(answer("prune", TEMPLATE, "--older-than", "30d", "--dry-run")["removed"]) == [two[0]]
        assert two[0].is_dir()
        done = answer("prune", TEMPLATE, "--older-than", "30d")
        assert paths(done["removed"]) == [two[0]]
        assert done["removed"][0]["files"] > 40
        assert os.listdir(two[0].parent) == [two[1].name]
        again = run_envsync("sync", "--lock", NEXT, "--env", TEMPLATE, "--json")
        assert json.loads(again.stdout)["outcome"] == "current"

    def test_by_number(self, two: list[Path], answer: Answer) -> None:
        """The one that was used last stays."""
        assert paths(answer("prune", TEMPLATE, "--keep", "1")["removed"]) == [two[0]]
        assert answer("prune", TEMPLATE, "--keep", "1")["removed"] == []

    def test_an_age_for_the_cache_is_not_meant(self, two: list[Path], answer: Answer) -> None:
        """What a variable says of `older-than` is for `cache prune`."""
        done = answer("prune", TEMPLATE, "--keep", "2", env={"ENVSYNC_OLDER_THAN": "0s"})
        assert done["removed"] == []
        assert answer("prune", TEMPLATE, status=2, env={"ENVSYNC_OLDER_THAN": "0s"})["error"]["class"] == "UsageError"

    @pytest.mark.parametrize("words", [("--older-than", "30"), ("--keep", "-1"), ("--keep", "x"), ("--keep", "\u00b2")])
    def test_what_makes_no_sense(self, two: list[Path], answer: Answer, words: tuple[str, str]) -> None:
        """Nothing is removed."""
        answer("prune", TEMPLATE, *words, status=2)
        assert all(path.is_dir() for path in two)

    def test_without_a_rule_somebody_has_to_say_yes(self, two: list[Path], run_envsync: Run) -> None:
        """Where there is no terminal, by `--yes`."""
        for words in (("prune", TEMPLATE), ("remove", TEMPLATE)):
            done = run_envsync("env", *words)
            assert done.returncode == 2
            assert "no terminal to ask" in done.stderr
        assert all(path.is_dir() for path in two)
        done = run_envsync("env", "prune", TEMPLATE, "--yes")
        assert done.stdout.startswith("removed 2 environments, ")
        assert os.listdir(two[0].parent) == []

    @pytest.mark.parametrize(("said", "left"), [(b"n\n", 2), (b"\n", 2), (b"y\n", 0)])
    def test_asking(self, two: list[Path], said: bytes, left: int) -> None:
        """On a terminal."""
        ours, theirs = pty.openpty()
        words = [*envsync_command(), "env", "prune", TEMPLATE]
        with subprocess.Popen(words, cwd=two[0].parents[1], stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            heard = b""
            while b"[y/N]" not in heard:
                heard += os.read(ours, 1000)
            os.write(ours, said)
        os.close(ours)
        assert b"remove all 2 environments" in heard
        assert (len(os.listdir(two[0].parent)), process.returncode) == (left, 1 if left else 0)

    def test_remove_by_path(self, two: list[Path], run_envsync: Run) -> None:
        """One that is named needs no other word; its trash goes, and its name is forgotten."""
        done = run_envsync("env", "remove", f"envs/{two[1].name}/")
        assert done.returncode == 0, done.stderr
        assert os.listdir(two[0].parent) == [two[0].name]
        assert run_envsync("env", "remove", str(two[1])).returncode == 125

    def test_remove_one_in_use(self, two: list[Path], run_envsync: Run) -> None:
        """Says who runs in it, and that it was not removed."""
        words = ["run", "--lock", LOCK, "--env", TEMPLATE, "--", *envsync_command()]
        done = run_envsync(*words, "env", "remove", str(two[0]))
        assert done.returncode == 1
        assert f"kept `{two[0]}`: " in done.stderr
        assert unverified(two[0]) == []

    @pytest.mark.parametrize("name", [".venv", "env"])
    def test_what_is_not_named_by_its_digest(self, run_envsync: Run, tmp_path: Path, name: str) -> None:
        """It may be a project's only one."""
        run_envsync("sync", "--lock", LOCK, "--env", name, check=True)
        done = run_envsync("env", "remove", name)
        assert done.returncode == 2
        assert "is not named by `{digest}`" in done.stderr
        assert unverified(tmp_path / name) == []

    def test_what_is_no_environment_of_ours(self, two: list[Path], run_envsync: Run, tmp_path: Path) -> None:
        """Links, other tools' environments and other things of such a name."""
        work = two[0].parent
        (work / ("a" * 32)).mkdir()
        (work / ("a" * 32) / "thesis.txt").touch()
        (work / ("b" * 32)).symlink_to(two[0])
        (work / ("c" * 32)).touch()
        shutil.move(two[1], tmp_path / "elsewhere")
        shutil.copytree(tmp_path / "elsewhere", two[1], symlinks=True, ignore=shutil.ignore_patterns(".envsync"))
        listed = run_envsync("env", "list", TEMPLATE).stdout
        assert listed.count("is none of ours") == 3
        done = run_envsync("env", "prune", TEMPLATE, "--yes")
        assert done.returncode == 0
        assert sorted(os.listdir(work)) == sorted(["a" * 32, "b" * 32, "c" * 32, two[1].name])
        for name in ("a" * 32, "b" * 32, two[1].name):
            assert run_envsync("env", "remove", str(work / name)).returncode == 1

    def test_names_are_forgotten(self, run_envsync: Run, tmp_path: Path) -> None:
        """What `{digest}` stands for is found out anew when it is asked for next."""
        words = ("--lock", LOCK, "--env", TEMPLATE, "--python")
        version = ".".join(map(str, sys.version_info[:2]))
        run_envsync("sync", *words, version, check=True)
        assert len(os.listdir(tmp_path / "envs/.envsync-names")) == 1
        run_envsync("env", "prune", TEMPLATE, "--yes", check=True)
        assert os.listdir(tmp_path / "envs/.envsync-names") == []
        run_envsync("run", *words, version, "--", "greet", check=True)

    def test_a_directory_that_cannot_be_written_to(self, two: list[Path], answer: Answer) -> None:
        """They stay, and are current."""
        if os.geteuid() == 0:
            pytest.skip("root can write to it (tests/rooms has a read-only one)")
        two[0].parent.chmod(0o555)
        done = answer("prune", TEMPLATE, "--yes")
        assert {each["reason"] for each in done["kept"]} == {f"`{two[0].parent}` cannot be written to"}
        two[0].parent.chmod(0o755)

    def test_the_cache_can_go_with_it(self, run_envsync: Run, tmp_path: Path) -> None:
        """What an environment links to by name stays in the cache as long as it is there."""
        run_envsync("sync", "--lock", LOCK, "--env", TEMPLATE, "--link-mode", "symlink", check=True)
        run_envsync("cache", "clean", check=True)
        size = json.loads(run_envsync("cache", "size", "--json").stdout)["all"]
        assert size["wheels"] > 0
        run_envsync("env", "prune", TEMPLATE, "--yes", check=True)
        run_envsync("cache", "clean", check=True)
        assert json.loads(run_envsync("cache", "size", "--json").stdout)["all"]["wheels"] == 0

    @pytest.mark.parametrize(
        "kind",
        [pytest.param(KILLS[0], id=KILLS[0].name), pytest.param(KILLS[1], marks=pytest.mark.slow, id=KILLS[1].name)],
    )
    def test_killed_at_every_change(
        self, tmp_path: Path, run_envsync: Run, monkeypatch: pytest.MonkeyPatch, kind: Kind
    ) -> None:
        """Nothing that is half removed is current: the next run has a whole one, the next prune removes the rest."""
        monkeypatch.chdir(tmp_path)
        prune = ["env", "prune", TEMPLATE, "--yes", "--quiet"]
        nth, seen = 1, set()
        while True:
            run_envsync("sync", "--lock", LOCK, "--env", TEMPLATE, check=True)
            blow = strike(prune, nth, kind)
            if not blow.struck:
                break
            seen.add(blow.struck[0].event)
            assert os.WTERMSIG(blow.status) == signal.SIGKILL
            # Of the changes in the trash, some stand for all
            nth += 1 if blow.struck[0].event != "os.remove" and blow.struck[0].event != "os.rmdir" else 30
            done = run_envsync("run", "--lock", LOCK, "--env", TEMPLATE, "--", "greet")
            assert done.returncode == 0, (blow, done.stderr)
            (there,) = json.loads(run_envsync("env", "list", TEMPLATE, "--json").stdout)["environments"]
            assert there["current"]
            assert unverified(Path(there["path"])) == []
            assert run_envsync(*prune).returncode == 0
            assert os.listdir(tmp_path / "envs") == [], blow
        assert {"os.rename", "os.remove", "os.rmdir"} <= seen
