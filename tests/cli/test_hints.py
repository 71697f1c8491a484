"""The hints of all errors: each command in one can be run, and does something where the error is met."""

from __future__ import annotations

import ast
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from envsync import cli
from tests.conftest import envsync_command
from tests.environments import FIXTURES
from tests.wheels import build_wheel

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SOURCE = Path(__file__).parents[2] / "envsync"
LOCK = str(FIXTURES / "pylock.toml")
TOOLS = ("uv", "pip", "pdm", "poetry", "pipenv", "pipx")
PROGRAMS = f"envsync|{'|'.join(TOOLS)}|sed|ls|ln|mv|rm|env|cd|echo|iconv|mkdir|chmod|kill|unset|export|df|ulimit|cp"
COMMAND = re.compile(rf"`((?:{PROGRAMS})\b[^`]*)`")


class Scene(NamedTuple):
    """Where an error is met: files are made, and a command line is run."""

    words: tuple[str, ...]
    make: Callable[[Path], object] = lambda directory: None
    variables: dict[str, str | None] = {}  # noqa: RUF012


def writes(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text)


def bad_wheel(directory: Path) -> None:
    wheel = Path(build_wheel(directory, "bad", "1.0", {"bad.py": ""}, wheel="Wheel-Version: 9.0\n"))
    (directory / "requirements.txt").write_text(f"./{wheel.name}\n")


def two_lock_files(directory: Path) -> None:
    shutil.copytree(FIXTURES / "wheels", directory / "wheels")
    shutil.copy(FIXTURES / "pylock.toml", directory)
    (directory / "requirements.txt").touch()


def strangers(directory: Path) -> None:
    (directory / "env").mkdir()
    (directory / "env" / "letter.txt").touch()


def empty(directory: Path) -> None:
    subprocess.run([*envsync_command(), "sync", "-q", "--lock", LOCK, "--env", "env"], cwd=directory, check=True)
    (directory / "requirements.txt").touch()


def a_pipe(directory: Path) -> None:
    subprocess.run([*envsync_command(), "sync", "-q", "--lock", LOCK, "--env", "env"], cwd=directory, check=True)
    (directory / "env" / ".lock").unlink()
    os.mkfifo(directory / "env" / ".lock")


PINNED = writes("requirements.txt", "absent==1.0\n")
SCENES = {
    "envsync run -- python --version": Scene(("run", "--lock", LOCK, "--env", "env")),
    "envsync sync": Scene(("check", "--lock", LOCK, "--env", "no env")),
    "envsync cache dir --cache-dir /var/tmp/cache": Scene(
        ("cache", "size"), variables={"HOME": "relative", "XDG_CACHE_HOME": None, "ENVSYNC_CACHE_DIR": None}
    ),
    "envsync sync --lock {}{}": Scene(("sync", "--env", "env"), two_lock_files),
    "envsync sync --env '.venvs/{digest}'": Scene(("sync", "--lock", LOCK, "--env", "env"), strangers),
    "envsync sync --python 3": Scene(("sync", "--lock", LOCK, "--env", "env", "--python", "/no/such")),
    "envsync sync --allow-empty": Scene(("sync", "--env", "env"), empty),
    "envsync sync --help": Scene(("sync", "--env", "env"), writes("pyproject.toml", "[tool.envsync]\nnonsense = 1\n")),
    "uv export --format pylock.toml --output-file pylock.toml": Scene(("sync",)),
    "uv export --script {} --format pylock.toml --output-file {}": Scene(
        ("sync", "--lock", "job.py"), writes("job.py", '# /// script\n# dependencies = ["absent"]\n# ///\nprint()\n')
    ),
    "sed -n {}p {}": Scene(("sync",), writes("requirements.txt", "fine==1.0\nfoo bar\n")),
    "pip wheel --no-deps --wheel-dir wheels {}": Scene(("sync",), writes("requirements.txt", "./proj\n")),
    "pip download --no-deps {}": Scene(("sync", "--offline"), PINNED),
    "pip wheel --no-deps --wheel-dir wheels --no-binary {} {}": Scene(("sync",), bad_wheel),
    "ls -la {}": Scene(("sync", "--no-index", "--find-links", "no where"), PINNED),
    "ls -a {}": Scene(("sync", "--lock", "no such.toml")),
    "rm {}": Scene(("run", "--lock", str(FIXTURES / "pylock.next.toml"), "--env", "env", "--", "true"), a_pipe),
    "ls -l {}": Scene(("run", "--lock", LOCK, "--env", "env", "--", "./job.py"), writes("job.py", "")),
    "ls {}": Scene(("run", "--lock", LOCK, "--env", "env", "--", "no-such-command")),
}
ELSEWHERE = "needs a filesystem, a host or a limit that a test does not have"
OTHERS = "needs other processes at the same moment; its parts are tested where those are"
NETWORK = "needs an index that refuses or is unsafe; accepted as it stands"
WITHOUT_SCENE = {
    "chmod 600 ~/.netrc": NETWORK,
    "df -h {}": ELSEWHERE,
    "echo --trusted-host {} >> requirements.txt": NETWORK,
    "env | grep -iE 'proxy|ssl_cert'": NETWORK,
    "envsync cache prune": ELSEWHERE,
    "envsync cache prune --timeout 600": OTHERS,
    "envsync cache verify": ELSEWHERE,
    "envsync check": ELSEWHERE,
    "envsync check --repair": "is said by `check` of what is damaged (test_check.py)",
    "envsync check --repair --lock pylock.toml": "needs a cache that lost a wheel (test_check.py)",
    "envsync doctor": ELSEWHERE,
    "envsync doctor --env /var/tmp/venv": ELSEWHERE,
    "envsync status": OTHERS,
    "envsync sync --busy ignore": OTHERS,
    "envsync sync --env '/var/tmp/venvs/{digest}'": ELSEWHERE,
    "envsync sync --cache-dir /var/tmp/envsync": ELSEWHERE,
    "envsync sync --cache-dir {}": ELSEWHERE,
    "envsync sync --cache-fallback /var/tmp/envsync-fallback": ELSEWHERE,
    "envsync sync --index-url {}": NETWORK,
    "envsync sync --link-mode copy": ELSEWHERE,
    "envsync sync --lock requirements.txt": "needs the file that the user is told to write",
    "envsync sync --no-offline": NETWORK,
    "envsync sync --offline": NETWORK,
    "envsync sync --python {}": "needs another Python (tests/unit/lockfile)",
    "envsync sync --timeout 600": OTHERS,
    "envsync sync --timeout {}": OTHERS,
    "export {}=1": "needs a fault of ours",
    "kill -CONT {}": OTHERS,
    "ls -ld {}": "needs a wheel that is no file (tests/unit/cache)",
    "pip download --no-deps {}=={}": "needs a wheel of something else (tests/unit/cache)",
    "pip index versions {}": NETWORK,
    "pip install --force-reinstall envsync": "needs an installation that is not whole",
    "pip install --upgrade envsync": "needs an environment of a newer version",
    "pipx install envsync": "needs an installation in the environment",
    "ulimit -a": OTHERS,
    "ulimit -n": ELSEWHERE,
    "ulimit -v": ELSEWHERE,
}


def texts() -> Iterator[str]:
    """All texts of the source but docstrings; what is filled in is `{}`."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if id(node) not in inner and (text := written(node)):
                yield text


def written(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return ""


def hinted() -> set[str]:
    """All commands that some text of the source hints at, but for the pattern of such hints itself."""
    return {command for text in texts() for command in COMMAND.findall(text) if "[a-z]" not in command} - {
        "envsync {}{}{}"
    }


def test_every_hinted_command_has_a_scene() -> None:
    """Whoever adds a hint says where its command is run, or why it cannot be here."""
    assert hinted() - SCENES.keys() - WITHOUT_SCENE.keys() == set()
    assert WITHOUT_SCENE.keys() - hinted() == set()
    assert SCENES.keys() & WITHOUT_SCENE.keys() == set()


def test_every_written_hint_has_a_command() -> None:
    """A sentence alone helps nobody at three in the morning."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                text = written(keyword.value) if keyword.arg == "hint" else ""
                assert (
                    not text or "`" in text or text.startswith(("{}", "install one, or {}", "find out who, or {}"))
                ), f"{path.name}:{node.lineno}: {text}"


def test_no_hint_moves_what_is_somebodys() -> None:
    """Nor writes over it: what is made has a name of its own, or is a lock file that its tool makes anew."""
    assert not [command for command in hinted() if command.startswith(("mv ", "cp ", "unset "))]
    assert {command for command in hinted() if command.startswith("rm ")} == {"rm {}"}


@pytest.mark.parametrize("command", sorted(each for each in hinted() if each.startswith("envsync ")))
def test_every_command_of_ours_is_accepted(command: str) -> None:
    """The options that hints name are known where they are named."""
    words = command.replace("'", "").split()[1:]
    if "--help" in words:
        return
    group = cli.envsync_command.commands[words[0]]
    if words[0] == "cache":
        group, words = group.commands[words[1]], words[1:]  # type: ignore[attr-defined]
    group.make_context(words[0], words[1:])


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Stand-ins for the tools of others, which need an index: they want something to do, and say that they did it."""
    directory = tmp_path / "tools"
    directory.mkdir()
    stub = '#!/bin/sh\n[ $# -gt 1 ] || exit 2\ncase "$*" in *--wheel-dir\\ wheels) exit 2;; esac\n'
    for name in TOOLS:
        (directory / name).write_text(stub)
        (directory / name).chmod(stat.S_IRWXU)
    ours = directory / "envsync"
    ours.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in envsync_command()) + ' "$@"\n')
    ours.chmod(stat.S_IRWXU)
    return directory


@pytest.mark.parametrize("command", SCENES)
def test_a_hinted_command_can_be_run_where_it_is_hinted_at(
    run_envsync: Run, tmp_path: Path, tools: Path, command: str
) -> None:
    """It is taken out of the message as it stands, with the options of the command line, and succeeds."""
    scene = SCENES[command]
    work = tmp_path / "work"
    work.mkdir()
    scene.make(work)
    done = run_envsync(*scene.words, cwd=work, env=scene.variables)
    assert done.returncode not in (0, 1), done.stderr
    hint = done.stderr.splitlines()[-1]
    assert hint.startswith("hint: "), done.stderr
    start, *rest = command.replace("'", "").partition(" {")[0].split(" -")
    plain = [(each, each.replace("'", "")) for each in COMMAND.findall(hint)]
    found = [each for each, words in plain if words.startswith(start) and all(f"-{part}" in words for part in rest)]
    assert found, hint
    variables = {**os.environ, **scene.variables, "PATH": f"{tools}:{os.environ['PATH']}"}
    again = subprocess.run(
        ["sh", "-c", found[0]],
        cwd=work,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, (found[0], again.stderr)
