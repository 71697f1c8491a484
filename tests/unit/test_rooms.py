"""The rooms of envsync: what they load, see and hold, and that documents and docstrings name what there is.

Which room imports from which is kept by import-linter (`lint-imports`, pyproject.toml).
"""

from __future__ import annotations

import ast
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envsync.launch import Environment, request
from envsync.launch.progress import quiet
from envsync.leading.progress_file import ProgressFile
from envsync.locks import flock
from tests.environments import FIXTURES

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "envsync").rglob("*.py"))

# What is loaded

LAUNCH = {
    "envsync",
    "envsync.__main__",
    "envsync.launch",
    "envsync.launch.command",
    "envsync.launch.configuration",
    "envsync.launch.fast_lane",
    "envsync.launch.finding",
    "envsync.launch.options",
    "envsync.launch.reading",
    "envsync.launch.request",
    "envsync.launch.stamp",
    "envsync.system",
    "envsync.system.posix_core",
}
"""What of envsync a launch in a current environment loads. A wheel has it in one file: `MODULES` in .ci/join.py."""
BUILT_IN = {"errno", "gc", "fcntl", "_blake2"}
"""What else it loads: all of it is built in, or written in C and small."""
WAITERS_ROOMS = {"errors", "launch", "locks", "system", "waiting"}
WAITERS_WAY = {
    "envsync",
    "envsync.__main__",
    "envsync.cli",
    "envsync.cli.run",
    "envsync.library",
    "envsync.library.reach",
}
"""What of other rooms a process goes through that does not find its environment current."""
WAITERS_BUILT_IN = BUILT_IN | {"__future__", "_json", "unicodedata"}
"""So no `os`, `re`, `json`, `typing`, `dataclasses`, `subprocess`, `signal` or library: fifty waiters start at once."""

BARE = [sys.executable, "-I", "-S", "-c"]
TELL = """\
import sys
sys.addaudithook(lambda event, words: print(*sys.modules, flush=True) if event == "os.exec" else None)
"""
"""Says what is loaded when the process becomes the command."""


@pytest.fixture
def project(tmp_path: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]]) -> Path:
    """A directory with a lock file, a table of options and its current environment."""
    directory = tmp_path / "project"
    shutil.copytree(FIXTURES / "wheels", directory / "wheels")
    shutil.copy(FIXTURES / "pylock.toml", directory)
    (directory / "pyproject.toml").write_text('[tool.envsync]\nenv = ".env"\n')
    run_envsync("sync", cwd=directory, check=True)
    return directory


def loaded(output: str) -> set[str]:
    """Return what was loaded at the first exec, beyond what a bare interpreter has."""
    bare = subprocess.run([*BARE, "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True)
    return set(output.splitlines()[0].split()) - set(bare.stdout.split())


def ours(modules: set[str]) -> set[str]:
    """Return those that are envsync's."""
    return {name for name in modules if name.partition(".")[0] == "envsync"}


@pytest.mark.parametrize("named", [False, True], ids=["", "by digest"])
def test_what_a_launch_loads(
    project: Path, tmp_path: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]], *, named: bool
) -> None:
    """By the launcher, in a current environment: these modules of ours, and no `site` nor anything else of Python's."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    words = ["run", *(["--env", "envs/{digest}", "--python", version] if named else []), "--", "true"]
    run_envsync(*words, cwd=project, check=True)
    installation = tmp_path / "installation"
    site = installation / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (site / "envsync").symlink_to(ROOT / "envsync")
    (installation / "bin").mkdir()
    (installation / "bin/python3").symlink_to(sys.executable)
    script = (ROOT / "envsync/launcher.sh").read_text()
    launcher = installation / "bin/envsync"
    launcher.write_text(script.replace("\ngc.disable()\n", f"\ngc.disable()\n{TELL}", 1))
    launcher.chmod(0o755)
    done = subprocess.run([launcher, *words], cwd=project, capture_output=True, text=True, check=True)
    modules = loaded(done.stdout)
    expected = LAUNCH | ({"envsync.launch.names"} if named else set())
    assert ours(modules) == expected
    assert modules - expected <= BUILT_IN


def test_what_a_sync_loads(project: Path, run_envsync: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """A sync whose wheels are in the store parses nothing that the cache remembers, and so loads no parser.

    Nor what only a wheel from a URL needs.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import envsync\n"
        "print(envsync.sync('pylock.toml', env='another').installed)\n"
        "print(*sys.modules)"
    )
    run_envsync("sync", "--env", "first", cwd=project, check=True)
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    installed, modules = done.stdout.splitlines()
    assert "greet==" in installed
    parsers = {"tomllib", "packaging.tags", "dataclasses", "urllib.request", "email", "envsync.lockfile.choice"}
    of_urls = {"urllib.parse", "ipaddress", "glob", "envsync.staging.uv_cache", "envsync.lockfile.target"}
    assert not (parsers | of_urls) & set(modules.split())


def wait_to_the_end(project: Path, start: list[str]) -> str:
    """Let one wait for the current environment of a project, and then have it. Returns what it has printed.

    It says by the leader's word for whom it waits, puts its name into the list, and enters.

    :param start: the words that start envsync
    """
    asked = request.resolve({"lock": str(project / "pylock.toml")}, {})
    environment = Environment(str(project / ".env"))
    locks = [flock.acquire_nowait(path, shared=False) for path in (environment.lock, environment.leading)]
    os.rename(environment.stamp, environment.draining)
    progress = ProgressFile(environment, asked.key, quiet)
    progress("downloading", 3, 9)
    words = [*start, "run", "--lock", asked.lock, "--env", environment.path, "--", "true"]
    with subprocess.Popen(words, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiter:
        assert waiter.stderr is not None
        said = waiter.stderr.readline()
        while not (os.path.isdir(environment.waiting) and os.listdir(environment.waiting)):
            assert waiter.poll() is None, said
            time.sleep(0.01)
        os.rename(environment.draining, environment.stamp)
        output, _ = waiter.communicate()
    progress.remove()
    for lock in locks:
        assert lock is not None
        lock.release()
    assert f"waiting for pid {os.getpid()} on " in said
    assert "downloading 3 of 9" in said
    assert waiter.returncode == 0
    return output


def test_what_a_waiter_loads(project: Path) -> None:
    """No library, and of Python's own nothing but what is written in C: fifty of them start at once."""
    code = f"{TELL}sys.path.insert(0, {str(ROOT)!r})\nfrom envsync.__main__ import start\nstart()"
    modules = loaded(wait_to_the_end(project, [*BARE, code]))
    assert "envsync.waiting.queue" in modules
    strangers = {name for name in ours(modules) - WAITERS_WAY if name.split(".")[1] not in WAITERS_ROOMS}
    assert strangers == set()
    assert modules - ours(modules) <= WAITERS_BUILT_IN


# What is seen and held

SEE_REQUESTS = {"launch", "leading", "bundling", "library", "checking", "managing", "cli"}
"""The rooms that know what a request is: below `leading`, what it decides is handed down."""
RECORDS = {"Name", "Option", "PipfileFile", "Request", "Stamp"}
"""Plain records that are no named tuples, since a launch does not load what those take."""
MOST_ATTRIBUTES = 10


def test_who_sees_a_request() -> None:
    """No room below the one that leads, but for the one that makes requests."""
    below = [
        path for path in SOURCES if path.parent.parent == ROOT / "envsync" and path.parent.name not in SEE_REQUESTS
    ]
    assert len(below) > 50
    assert [path for path in below if re.search(r"import .*\bRequest\b", path.read_text())] == []


def attributes(node: ast.ClassDef) -> set[str]:
    """Return what methods of a class assign to `self`."""
    stored = (each for each in ast.walk(node) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store))
    return {each.attr for each in stored if isinstance(each.value, ast.Name) and each.value.id == "self"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_class_holds_too_much(path: Path) -> None:
    """One that has more than ten attributes does several things, unless it is a plain record."""
    classes = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.ClassDef)]
    large = {each.name for each in classes if len(attributes(each)) > MOST_ATTRIBUTES}
    assert large - RECORDS == set()


ASKS = re.compile(r"\bsys\.platform\b|\bos\.name\b|\bplatform\.system\(")
MAY_ASK = {
    "building/supervisor.py",
    "python/interpreter_child.py",
    "integrations/multiprocessing.py",
    "integrations/tox.py",
}
"""Two programs of their own, the second of another Python; what is for POSIX as a whole; and tox wants to be told."""


def test_who_asks_which_system_it_is() -> None:
    """Nobody but `system`: each of its modules is for one, and `core` and `native` are that of this one."""
    asking = {str(path.relative_to(ROOT / "envsync")) for path in SOURCES if ASKS.search(path.read_text())}
    assert {name for name in asking if not name.startswith("system/")} == MAY_ASK


def test_what_a_launch_needs_of_the_system() -> None:
    """Of ours it imports nothing, but on Windows the table of error codes and what locks: `launch` is built on it."""
    for name in ("posix_core", "windows_core"):
        text = (ROOT / f"envsync/system/{name}.py").read_text()
        found = {line.strip() for line in text.splitlines() if re.match(r" *(from|import) envsync", line)}
        assert found <= {"from envsync.system import windows_locks", "from envsync.system import refusals"}


@pytest.mark.parametrize("modules", [("posix_core", "windows_core"), ("linux", "darwin", "windows")])
def test_each_system_has_the_same(modules: tuple[str, ...]) -> None:
    """The same names, with the same signatures: mypy reads one system at a time, and would not tell."""
    first, *others = ({**shapes("posix"), **shapes(name)} if name != "posix_core" else shapes(name) for name in modules)
    native = set(
        re.findall(r"^(\w+) = (?:common|here)\.", (ROOT / "envsync/system/native.py").read_text(), re.MULTILINE)
    )
    names = set(first) if modules[0] == "posix_core" else native
    for other in others:
        assert names <= set(other)
        differ = {name for name in names if first[name] != other[name]}
        assert {name for name in differ if VALUE not in (first[name], other[name])} == set()


VALUE = "value"
"""Of what is no function of ours: a constant, or a function of `os`, which has its own signature."""


def shapes(module: str) -> dict[str, str]:
    """Return the public names of a module of `system`, each with its signature, or what it is."""
    found = {}
    for node in ast.parse((ROOT / f"envsync/system/{module}.py").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.unparse(node.args)
        elif isinstance(node, ast.Assign):
            found.update(
                (name.id, VALUE) for each in node.targets for name in ast.walk(each) if isinstance(name, ast.Name)
            )
    return {
        name: shape for name, shape in found.items() if not name.startswith("_") and name not in ("TYPE_CHECKING", "os")
    }


# What is named

PAGES = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if path.name != "CHANGELOG.md")
NAMES = re.compile(r"(?<![\w./~-])envsync(?!\.toml\b)(?:\.[A-Za-z_]\w*)+")
PATHS = re.compile(r"(?<![\w./~-])(?:envsync|tests|docs|benchmarks|fixtures|\.ci)/[\w./-]*\w")
LINKS = re.compile(r"\]\(([^)#:]+)[^)]*\)")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a document, or the docstrings and comments of a module, each with the line where it begins."""
    if path.suffix == ".md":
        yield 1, path.read_text()
        return
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.endswith('"""')):
            yield token.start[0], token.string


def defined(path: Path) -> set[str]:
    """Name the classes and functions of a module, without importing it."""
    return {each.name for each in ast.parse(path.read_text()).body if isinstance(each, (ast.ClassDef, ast.FunctionDef))}


def exists(name: str) -> bool:
    """Tell whether a dotted name is that of a module, or of something in one."""
    words = name.split(".")
    for length in range(len(words), 0, -1):
        path = ROOT.joinpath(*words[:length])
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            # An engine may not be here, and a system's module is for that system.
            if words[1] in ("integrations", "system") and length > 2:
                return set(words[length : length + 1]) <= defined(path.with_suffix(".py"))
            found: object = importlib.import_module(".".join(words[:length]))
            for word in words[length:]:
                if not hasattr(found, word) and word not in getattr(found, "__annotations__", {}):
                    return False
                found = getattr(found, word, None)
            return True
    return False


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_is_there(path: Path) -> None:
    """Modules, functions, files and pages that a document, a docstring or a comment names, whatever was moved."""
    missing = []
    for line, text in texts(path):
        missing += [f"{line}: {match[0]}" for match in NAMES.finditer(text) if not exists(match[0])]
        missing += [f"{line}: {match[0]}" for match in PATHS.finditer(text) if not (ROOT / match[0]).exists()]
        if path.suffix == ".md":
            missing += [f"{line}: {link[1]}" for link in LINKS.finditer(text) if not (path.parent / link[1]).exists()]
    assert missing == []


def test_where_state_lives() -> None:
    """docs/architecture.md names every file that is kept in an environment, and every directory of a cache."""
    page = (ROOT / "docs/architecture.md").read_text()
    environment = Environment("ENV")
    state = [getattr(environment, name) for name in vars(Environment) if isinstance(vars(Environment)[name], property)]
    kept = {os.path.basename(path) for path in state if path.startswith((environment.state, environment.lock))}
    assert {name for name in kept if not re.search(rf"[`/]{re.escape(name)}[`/]", page)} == set()
    kinds = {kind for path in SOURCES for kind in re.findall(r"/v1/(\w[\w-]*)", path.read_text())}
    assert len(kinds) > 5
    assert {kind for kind in kinds if f"v1/{kind}/" not in page} == set()
