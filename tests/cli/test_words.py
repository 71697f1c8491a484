"""What a person types and sees: short options, flags that are taken back, help, and errors in one form."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync import lockfile
from envsync.cli import tell
from tests.environments import FIXTURES, site_packages

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
COMMANDS = ("run", "sync", "check", "status", "doctor", "cache")
BELOW_CACHE = ("dir", "size", "clean", "prune", "verify")
ALL = [(), *((name,) for name in COMMANDS), *(("cache", name) for name in BELOW_CACHE)]


@pytest.mark.parametrize("command", ALL, ids=" ".join)
@pytest.mark.parametrize("columns", ["80", "40"])
def test_help_is_whole_on_every_command(run_envsync: Run, command: tuple[str, ...], columns: str) -> None:
    """`-h` and `--help` say the same, in whole sentences and within the terminal."""
    short = run_envsync(*command, "-h", env={"COLUMNS": columns})
    long = run_envsync(*command, "--help", env={"COLUMNS": columns})
    assert (short.returncode, short.stdout) == (0, long.stdout)
    lines = short.stdout.splitlines()
    assert not [line for line in lines[1:] if line.endswith("...")]
    words = " ".join(short.stdout.split())
    for name in {(): COMMANDS, ("cache",): BELOW_CACHE}.get(command, ()):
        assert re.search(rf" {name} [A-Z][^.]*\.", words), name
    if columns == "80":
        assert max(map(len, lines)) <= 80


def test_the_version_in_short(run_envsync: Run) -> None:
    """`-V` is `--version`."""
    done = run_envsync("-V")
    assert (done.returncode, done.stdout) == (0, run_envsync("--version").stdout)


def test_run_leaves_short_options_to_the_command(run_envsync: Run) -> None:
    """Behind the command, `-h` and `-V` are its own."""
    done = run_envsync("run", "--lock", LOCK, "--env", "env", "-q", "--", "echo", "-h", "-V")
    assert done.stdout == "-h -V\n"


def test_a_flag_of_the_file_is_taken_back(run_envsync: Run, tmp_path: Path) -> None:
    """The command line wins over `inexact = true`, and so does ENVSYNC_INEXACT=0; the last of two flags wins."""
    project = tmp_path / "project"
    shutil.copytree(FIXTURES, project)
    (project / "pyproject.toml").write_text("[tool.envsync]\ninexact = true\n")
    words = project / "env"

    def stays(*flags: str, **variables: str) -> bool:
        run_envsync("sync", "--lock", "pylock.toml", "--env", "env", cwd=project, check=True)
        run_envsync(
            "sync", *flags, "--lock", "pylock.next.toml", "--env", "env", cwd=project, env=variables, check=True
        )
        return (site_packages(words) / "almanac_words-1.0.dist-info").is_dir()

    assert stays()
    assert not stays("--no-inexact", "--no-durable", "--no-compile-bytecode", "--no-offline", "--no-no-index")
    assert not stays(ENVSYNC_INEXACT="0")
    assert not stays(ENVSYNC_INEXACT="false")
    assert stays("--no-inexact", "--inexact", ENVSYNC_INEXACT="0")


@pytest.mark.parametrize(
    ("words", "named", "helped"),
    [
        (["sync", "--unheard-of"], "--unheard-of", "envsync sync"),
        (["sync", "word"], "word", "envsync sync"),
        (["sync", "--env"], "--env", "envsync sync"),
        (["sync", "--timeout", "soon"], "soon", "envsync sync"),
        (["status", "--timeout", "3"], "--timeout", "envsync status"),
        (["doctor", "--lock"], "--lock", "envsync doctor"),
        (["unheard-of"], "unheard-of", "envsync"),
        (["cache", "unheard-of"], "unheard-of", "envsync cache"),
        (["cache", "prune", "--older-than"], "--older-than", "envsync cache prune"),
        (["cache", "prune", "--older-than", "3"], "`3`", "envsync cache prune"),
        (["--unheard-of"], "--unheard-of", "envsync"),
        (["run", "--unheard-of", "true"], "--unheard-of", "envsync run"),
        (["run", "--env"], "--env", "envsync run"),
    ],
)
def test_errors_of_usage_have_one_form(run_envsync: Run, words: list[str], named: str, helped: str) -> None:
    """Whoever finds them, they are a sentence and a hint, and exit with 2, or 125 where a command follows."""
    done = run_envsync(*words)
    assert done.returncode == (125 if words[0] == "run" else 2)
    error, hint = done.stderr.splitlines()
    assert error.startswith("envsync: error: ")
    assert named in error
    assert hint == f"hint: `{helped} --help` says what can be given"
    assert done.stdout == ""
    assert run_envsync(*helped.split()[1:], "--help").returncode == 0


def test_run_without_a_command(run_envsync: Run) -> None:
    """It says how one is given, with the options that were."""
    done = run_envsync("run", "--lock", LOCK, "--env", "an env", "-q")
    assert done.returncode == 125
    hint = done.stderr.splitlines()[1]
    assert hint == f"hint: name it behind the options: `envsync run --lock {LOCK} --env 'an env' -- python --version`"


def test_a_similar_option_is_named(run_envsync: Run) -> None:
    """As most commands do."""
    assert "perhaps `--offline`" in run_envsync("sync", "--ofline").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "--lock", "nope.toml"], ("LockFileError", 125, "nope.toml")),
        (["sync", "--unheard-of"], ("UsageError", 2, "--unheard-of")),
        (["check", "--env", "none"], ("NoEnvironmentError", 125, "none")),
        (["status", "--lock", "nope.toml"], ("LockFileError", 125, "nope.toml")),
        (["doctor", "--lock", "nope.toml"], ("LockFileError", 125, "nope.toml")),
        (["cache", "prune", "--older-than", "3"], ("UsageError", 2, "`3`")),
    ],
)
def test_an_error_is_an_object_too(run_envsync: Run, words: list[str], said: tuple[object, ...]) -> None:
    """With `--json`, stdout has class, exit status, message and hint, and stderr the sentences for people."""
    done = run_envsync(*words, "--json")
    error = json.loads(done.stdout)["error"]
    assert (error["class"], error["code"], done.returncode) == (said[0], said[1], said[1])
    assert str(said[2]) in error["message"]
    assert done.stderr == f"envsync: error: {error['message']}\n" + (
        f"hint: {error['hint']}\n" if error["hint"] else ""
    )


def test_the_json_of_a_command_is_its_own(run_envsync: Run) -> None:
    """`run` prints nothing to stdout, whatever the command is told."""
    done = run_envsync("run", "--lock", "nope.toml", "--", "true", "--json")
    assert (done.returncode, done.stdout) == (125, "")


@pytest.mark.parametrize(
    ("hint", "words", "completed"),
    [
        ("`envsync sync`", ["sync", "--lock", "a b", "-q"], "`envsync sync --lock 'a b'`"),
        ("`envsync sync --env x`", ["run", "--env", "y", "--extra", "z", "true"], "`envsync sync --extra z --env x`"),
        ("`envsync sync --env x`", ["sync", "--active", "--extra", "z"], "`envsync sync --extra z --env x`"),
        ("`envsync sync --package a`", ["run", "--all-packages", "true"], "`envsync sync --package a`"),
        ("see `envsync doctor`", ["sync", "--lock=l", "--timeout", "3"], "see `envsync doctor --lock l`"),
        ("`envsync cache prune`", ["sync", "--cache-dir", "c", "--offline"], "`envsync cache prune --cache-dir c`"),
        ("`envsync sync`", ["run", "--no-inexact", "--timeout", "3", "x"], "`envsync sync --no-inexact --timeout 3`"),
        ("`envsync sync --help`", ["sync", "--lock", "l"], "`envsync sync --help`"),
        ("`envsync status`, `uv lock`", ["sync", "--unheard-of"], "`envsync status`, `uv lock`"),
        (
            "`envsync sync`",
            ["sync", "--index-url", "https://user:word@host/simple"],
            "`envsync sync --index-url https://host/simple`",
        ),
    ],
)
def test_hints_repeat_the_options_that_matter(hint: str, words: list[str], completed: str) -> None:
    """Those that the hinted command knows and does not have, quoted for a shell, and without passwords."""
    assert tell.completed(hint, words) == completed


def test_what_libraries_say_looks_like_all_else(run_envsync: Run, tmp_path: Path) -> None:
    """A lock file of a later minor version is used, and it is said whose words these are about, once."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    text = (FIXTURES / "pylock.toml").read_text()
    (tmp_path / "pylock.toml").write_text(re.sub("^lock-version.*", 'lock-version = "1.1"', text, flags=re.MULTILINE))
    done = run_envsync("sync", check=True)
    assert all(line.startswith("envsync: ") for line in done.stderr.splitlines())
    assert len([line for line in done.stderr.splitlines() if "`pylock.toml`" in line and "1.1" in line]) == 1


def test_a_program_that_uses_the_library_keeps_its_logging(tmp_path: Path) -> None:
    """Only the command line says what libraries say; a program decides for itself."""
    lock = tmp_path / "pylock.toml"
    lock.write_text('lock-version = "1.1"\ncreated-by = "test"\npackages = []\n')
    before = logging.lastResort, warnings.showwarning
    lockfile.read(str(lock))
    assert (logging.lastResort, warnings.showwarning) == before


def test_all_blockers_are_one_message(run_envsync: Run, tmp_path: Path) -> None:
    """A line for each, and the hint is the last one."""
    (tmp_path / "requirements.txt").write_text("alpha\nbeta\n")
    done = run_envsync("sync")
    assert done.stderr.splitlines() == [
        "envsync: error: cannot use lock file `requirements.txt`: 2 of its packages cannot be installed:",
        "  line 1: `alpha` is not pinned to one version",
        "  line 2: `beta` is not pinned to one version",
        "hint: pin all of it with `uv pip compile --generate-hashes --output-file requirements.lock.txt "
        "requirements.txt`, and name `requirements.lock.txt` with --lock",
    ]
