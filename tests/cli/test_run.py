"""What a person types and sees: `envsync run`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.environments import FIXTURES, site_packages

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")


def test_a_missing_environment_is_made_and_the_command_runs_in_it(run_envsync: Run, tmp_path: Path) -> None:
    """One command makes, fills and uses an environment that was not there; stdout is the command's alone."""
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet")
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n")
    assert "5 installed" in done.stderr
    assert (tmp_path / "env" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "env" / "CACHEDIR.TAG").is_file()


def test_a_current_environment_is_used_without_a_word(run_envsync: Run) -> None:
    """A second run has nothing to say."""
    run_envsync("run", "--lock", LOCK, "--env", "env", "--", "true")
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet", "neighbour")
    assert (done.stdout, done.stderr) == ("HELLO, NEIGHBOUR!\n", "")


def test_a_command_line_that_takes_the_whole_interface(run_envsync: Run, tmp_path: Path) -> None:
    """`-qv` is two options, which the fast parser does not know; all is as with `-q -v`: made, used, and mended."""
    words = ("run", "-qv", "--lock", LOCK, "--env", "env", "--", "python", "-c", "print('it ran')")
    for spoil in (None, None, "python"):
        if spoil is not None:
            (tmp_path / "env" / "bin" / spoil).unlink()
            (tmp_path / "env" / "bin" / spoil).symlink_to(tmp_path / "gone")
        done = run_envsync(*words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "it ran\n", "")
        plain = run_envsync("run", "-q", "-v", *words[2:])
        assert (plain.returncode, plain.stdout, plain.stderr) == (0, "it ran\n", "")


def test_the_command_sees_an_activated_environment(run_envsync: Run, tmp_path: Path) -> None:
    """VIRTUAL_ENV and PATH are as activation sets them, PYTHONHOME is gone, PYTHONPATH is kept."""
    show = (
        "import os; print(*(os.environ.get(n) for n in ('VIRTUAL_ENV', 'PATH', 'PYTHONHOME', 'PYTHONPATH')), sep='\\n')"
    )
    done = run_envsync(
        *("run", "--lock", LOCK, "--env", "env", "--", "python", "-c", show),
        env={"PATH": "/usr/bin:/bin", "PYTHONHOME": None, "PYTHONPATH": "/somewhere"},
    )
    env = tmp_path / "env"
    assert done.stdout.splitlines() == [str(env), f"{env}/bin:/usr/bin:/bin", "None", "/somewhere"]
    assert "PYTHONPATH" in done.stderr


@pytest.mark.parametrize("how", ["option", "variable", "file"])
def test_isolated(run_envsync: Run, tmp_path: Path, how: str) -> None:
    """With --isolated, modules of PYTHONPATH and the user's own have no say, at the first run and at all others."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "shout.py").write_text("")
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    lock = shutil.copy(FIXTURES / "pylock.toml", tmp_path)
    if how == "file":
        (tmp_path / "pyproject.toml").write_text("[tool.envsync]\nisolated = true\n")
    env = {"PYTHONPATH": str(tmp_path / "modules"), "PYTHONHOME": "/nowhere"}
    env |= {"ENVSYNC_ISOLATED": "1"} if how == "variable" else {}
    options = ["--isolated"] if how == "option" else []
    code = "import shout, site; print(shout.__file__, site.ENABLE_USER_SITE)"
    for _ in range(2):
        words = ["run", *options, "--lock", lock, "--env", "env", "--", "python", "-c", code]
        done = run_envsync(*words, env={**env, "PYTHONHOME": None})
        assert done.stdout == f"{site_packages(tmp_path / 'env')}/shout.py False\n"
        assert "PYTHONPATH" not in done.stderr


def test_pythonpath_is_named_where_one_looks(run_envsync: Run, tmp_path: Path) -> None:
    """Who makes the environment current says that PYTHONPATH is kept, and `status` does; a launch says nothing."""
    env = {"PYTHONPATH": str(tmp_path)}
    said = [run_envsync("run", "--lock", LOCK, "--env", "env", "--", "true", env=env).stderr for _ in range(2)]
    assert [text.count("PYTHONPATH") for text in said] == [1, 0]
    assert "--isolated" in said[0]
    assert f"`{tmp_path}`" in run_envsync("status", "--lock", LOCK, "--env", "env", env=env).stdout
    shown = json.loads(run_envsync("status", "--lock", LOCK, "--env", "env", "--json", env=env).stdout)
    assert shown["pythonpath"] == str(tmp_path)
    assert "PYTHONPATH" not in run_envsync("status", "--lock", LOCK, "--env", "env").stdout


@pytest.mark.parametrize("status", [0, 1, 3, 124, 125])
def test_the_exit_status_is_the_commands_own(run_envsync: Run, status: int) -> None:
    """Whatever the command exits with is what the scheduler sees."""
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "--", "sh", "-c", f"exit {status}")
    assert done.returncode == status


def test_a_signal_that_ends_the_command_is_seen_as_such(run_envsync: Run) -> None:
    """The process is the command itself, so a signal is not turned into a status."""
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "--", "sh", "-c", "kill -TERM $$")
    assert done.returncode == -signal.SIGTERM


def test_a_command_that_is_nowhere_exits_127(run_envsync: Run) -> None:
    """As a shell says it, with a hint."""
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "-q", "--", "no-such-command")
    assert done.returncode == 127
    assert "command `no-such-command` not found" in done.stderr
    assert "hint:" in done.stderr


def test_a_command_that_cannot_be_executed_exits_126(run_envsync: Run, tmp_path: Path) -> None:
    """As a shell says it, with the path."""
    (tmp_path / "plain").write_text("x")
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "-q", "--", "./plain")
    assert done.returncode == 126
    assert "cannot execute `./plain`: Permission denied" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lock", "missing.toml", "--", "true"], "cannot use lock file `missing.toml`: No such file or directory"),
        (["--timeout", "soon", "--", "true"], "`soon` is not a number of seconds"),
        (["--busy", "maybe", "--", "true"], "`maybe` is not one of wait, fail, ignore"),
        (["--unheard-of", "--", "true"], "--unheard-of"),
        (["--lock"], "option `--lock` needs a value"),
        (["--", "true"], "no lock file (uv.lock, poetry.lock, pdm.lock, Pipfile.lock, pylock.toml, requirements.txt)"),
    ],
)
def test_what_is_wrong_with_us_exits_125(run_envsync: Run, arguments: list[str], said: str) -> None:
    """Usage included, so that a scheduler can tell our failure from the job's."""
    done = run_envsync("run", *arguments)
    assert done.returncode == 125
    assert said in done.stderr
    assert done.stdout == ""


def test_the_lock_file_of_the_nearest_parent_is_found(run_envsync: Run, tmp_path: Path) -> None:
    """Without --lock, the environment is .venv beside the lock file that is found."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    shutil.copy(LOCK, tmp_path / "pylock.toml")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    done = run_envsync("run", "greet", cwd=below)
    assert done.stdout == "HELLO, WORLD!\n"
    assert (tmp_path / ".venv" / "pyvenv.cfg").is_file()
    (tmp_path / "requirements.txt").write_text("")
    assert run_envsync("run", "greet", cwd=tmp_path).stdout == "HELLO, WORLD!\n"
    for name in ("uv.lock", "pdm.lock"):
        (tmp_path / name).touch()
    done = run_envsync("run", "greet", cwd=tmp_path)
    assert done.returncode == 125
    assert "several lock files in this directory: uv.lock, pdm.lock" in done.stderr


@pytest.mark.parametrize("option", ["--project", "--directory"])
def test_a_project_elsewhere(run_envsync: Run, tmp_path: Path, option: str) -> None:
    """`--directory` is where the command runs, too; with `--project` it runs where one stands."""
    project = tmp_path / "project"
    shutil.copytree(FIXTURES / "wheels", project / "wheels")
    shutil.copy(LOCK, project / "pylock.toml")
    for command in ("run", "run", "sync", "status", "check"):
        words = ["greet", "&&", "pwd"] if command == "run" else []
        done = run_envsync(command, option, "project", *(["sh", "-c", " ".join(words)] if words else []), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        where = project if option == "--directory" else tmp_path
        assert command != "run" or done.stdout == f"HELLO, WORLD!\n{where}\n"
    assert (project / ".venv" / "pyvenv.cfg").is_file()


def test_an_environment_as_it_is(run_envsync: Run, tmp_path: Path) -> None:
    """`--no-sync` takes what is there, whatever it was synced for, and makes nothing."""
    project = tmp_path / "project"
    shutil.copytree(FIXTURES, project)
    words = ("run", "--no-sync", "--lock", "pylock.next.toml", "greet")
    done = run_envsync(*words, cwd=project)
    assert done.returncode == 125
    assert "there is no environment `.venv`" in done.stderr
    assert "`envsync sync" in done.stderr
    run_envsync("sync", "--lock", "pylock.toml", cwd=project, check=True)
    before = (project / ".venv" / ".envsync" / "stamp").read_bytes()
    assert run_envsync(*words, cwd=project).stdout == "HELLO, WORLD!\n"
    assert (project / ".venv" / ".envsync" / "stamp").read_bytes() == before
    within = run_envsync("run", "--lock", "pylock.toml", "sh", "-c", "envsync status", cwd=project)
    assert within.returncode == 0, within.stderr
    shutil.rmtree(project / ".venv" / ".envsync")
    assert run_envsync(*words, cwd=project).stdout == "HELLO, WORLD!\n"
    assert not (project / ".venv" / ".envsync").exists()


def test_options_come_from_variables_and_pyproject_as_well(run_envsync: Run, tmp_path: Path) -> None:
    """The command line wins over the environment, the environment over the file."""
    shutil.copytree(FIXTURES, tmp_path / "project")
    project = tmp_path / "project"
    (project / "pyproject.toml").write_text('[tool.envsync]\nlock = "pylock.next.toml"\nenv = "from-file"\n')
    (project / "requirements.txt").unlink()
    assert run_envsync("run", "greet", cwd=project).stdout == "HOWDY, PARTNER!\n"
    assert (project / "from-file").is_dir()
    variables = {"ENVSYNC_ENV": "from-variable"}
    assert run_envsync("run", "greet", cwd=project, env=variables).stdout == "HOWDY, PARTNER!\n"
    assert (project / "from-variable").is_dir()
    done = run_envsync("run", "--lock", "pylock.toml", "--env", "given", "greet", cwd=project, env=variables)
    assert done.stdout == "HELLO, WORLD!\n"
    assert (project / "given").is_dir()
    (project / "pyproject.toml").write_text('[tool.envsync]\nlok = "x"\n')
    done = run_envsync("run", "greet", cwd=project)
    assert done.returncode == 125
    assert "`lok` in [tool.envsync] of `pyproject.toml` is not an option" in done.stderr


def test_an_upgrade_of_equal_size_runs_the_new_code(run_envsync: Run) -> None:
    """Bytecode of the old version must not be taken for that of the new one: sizes are equal, mtimes are not."""
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"
    assert run_envsync("run", "--lock", NEXT, "--env", "env", "--", "greet").stdout == "HOWDY, PARTNER!\n"
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"


def test_an_environment_without_pyvenv_cfg_is_remade_and_the_base_is_not_touched(
    run_envsync: Run, tmp_path: Path
) -> None:
    """Without pyvenv.cfg, the environment's python is the base interpreter: its packages are not ours to remove."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    base = Path(os.path.realpath(tmp_path / "env" / "bin" / "python")).parent.parent
    site = next(iter((base / "lib").glob("python*/site-packages")), base)
    before = sorted(path.name for path in site.iterdir())
    (tmp_path / "env" / "pyvenv.cfg").unlink()
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet")
    assert done.stdout == "HELLO, WORLD!\n"
    assert (tmp_path / "env" / "pyvenv.cfg").is_file()
    assert sorted(path.name for path in site.iterdir()) == before


@pytest.mark.parametrize("command", ["greet", "python"])
def test_an_environment_whose_base_is_gone_is_remade(run_envsync: Run, tmp_path: Path, command: str) -> None:
    """The kernel's ENOENT for the interpreter is not mistaken for a command that is not there."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    scripts = tmp_path / "env" / "bin"
    for link in scripts.glob("python*"):
        link.unlink()
        link.symlink_to("/nonexistent/python")
    done = run_envsync(
        "run", "--lock", LOCK, "--env", "env", "--", command, *(["-c", ""] if command == "python" else [])
    )
    assert done.returncode == 0, done.stderr
    assert os.path.exists(scripts / "python")


def test_a_moved_environment_is_remade(run_envsync: Run, tmp_path: Path) -> None:
    """Scripts name the place where the environment was: there, another one may be by now."""
    run_envsync("sync", "--lock", LOCK, "--env", "old")
    (tmp_path / "old").rename(tmp_path / "new")
    done = run_envsync("run", "--lock", LOCK, "--env", "new", "--", "greet")
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n")
    assert str(tmp_path / "new") in (tmp_path / "new" / "bin" / "greet").read_text()
    assert str(tmp_path / "new") in (tmp_path / "new" / "bin" / "activate").read_text()


def test_a_directory_that_is_no_environment_is_refused_untouched(run_envsync: Run, tmp_path: Path) -> None:
    """Somebody's files are no place for an environment."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    done = run_envsync("run", "--lock", LOCK, "--env", "home", "--", "greet")
    assert done.returncode == 125
    assert "not a virtual environment" in done.stderr
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["thesis.tex"]


def test_files_that_nobody_owns_are_named_and_left(run_envsync: Run, tmp_path: Path) -> None:
    """A file in the way stops the sync before anything is changed."""
    run_envsync("sync", "--lock", NEXT, "--env", "env")
    mine = site_packages(tmp_path / "env") / "almanac" / "words"
    mine.mkdir()
    (mine / "__init__.py").write_text("mine")
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet")
    assert done.returncode == 125
    assert "almanac/words/__init__.py" in done.stderr
    assert (mine / "__init__.py").read_text() == "mine"
    assert run_envsync("run", "--lock", NEXT, "--env", "env", "--", "greet").stdout == "HOWDY, PARTNER!\n"


def test_a_read_only_environment_runs_if_it_is_what_is_asked_for(run_envsync: Run, tmp_path: Path) -> None:
    """Nothing is written to launch a command; without a fitting stamp names and versions are compared."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    env = tmp_path / "env"
    read_only = ["unshare", "--mount", "sh", "-c", 'mount --bind -o ro "$0" "$0" && exec "$@"', str(env)]
    if subprocess.run([*read_only, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")

    def run(lock: str) -> subprocess.CompletedProcess[str]:
        words = [*read_only, *envsync_command(), "run", "--lock", lock, "--env", str(env), "--", "greet"]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert (run(LOCK).stdout, run(LOCK).stderr) == ("HELLO, WORLD!\n", "")
    refused = run(NEXT)
    assert refused.returncode == 125
    assert "it lacks greet==2.0" in refused.stderr
    (env / ".envsync" / "stamp").unlink()
    unverified_run = run(LOCK)
    assert unverified_run.stdout == "HELLO, WORLD!\n", unverified_run.stderr
    assert "unverified" in unverified_run.stderr


def test_events_tell_what_happened(run_envsync: Run, tmp_path: Path) -> None:
    """One JSON line each, appended: a sync is counted once, every launch is."""
    events = tmp_path / "events.jsonl"
    for _ in range(2):
        run_envsync("run", "--lock", LOCK, "--env", "env", "--", "true", env={"ENVSYNC_EVENTS": str(events)})
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "synced", "launched", "launched"]
    assert {line["env"] for line in lines} == {str(tmp_path / "env")}
    assert len({line["digest"] for line in lines}) == 1


def test_an_environment_for_each_digest(run_envsync: Run, tmp_path: Path) -> None:
    """`{digest}` gives each lock file an environment that is never changed once made."""
    for lock, said in ((LOCK, "HELLO, WORLD!\n"), (NEXT, "HOWDY, PARTNER!\n"), (LOCK, "HELLO, WORLD!\n")):
        assert run_envsync("run", "--lock", lock, "--env", "envs/{digest}", "--", "greet").stdout == said
    assert len(list((tmp_path / "envs").iterdir())) == 2
