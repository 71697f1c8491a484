"""The files that a `run` loads of a wheel in place of its modules (.ci/join.py): they are those, and nothing else."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

import envsync
from tests.environments import FIXTURES
from tests.unit.test_rooms import LAUNCH, ROOT, TELL, wait_to_the_end

JOIN = ROOT / ".ci/join.py"
MOST_CALLS = 8
"""So many system calls may take a path or a descriptor of envsync's own files: without the file it was 105."""
pytestmark = pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="needs hatchling to build wheels")


def build(source: Path, target: str, into: Path) -> Path:
    """Build a wheel or a source distribution with the hatchling that is installed."""
    words = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    subprocess.run(words, cwd=source, capture_output=True, check=True, timeout=60)
    (built,) = into.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def texts(wheel: Path) -> dict[str, str]:
    """The files, as they are in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if name.endswith("/joined.py")}


@pytest.fixture(scope="module")
def join() -> ModuleType:
    spec = importlib.util.spec_from_file_location("join", JOIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Installation:
    """The wheel, installed by pip into a virtual environment that sees the libraries of this one."""

    def __init__(self, root: Path) -> None:
        self.launcher = root / "bin/envsync"
        self.python = root / "bin/python3"
        self.site = root / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        self.joined = self.site / "envsync/launch/joined.py"

    def run(self, *words: str, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([self.launcher, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stderr
        return done

    def tell(self, code: str, *, joined: bool) -> str:
        """Run some code after the modules have been loaded, and return what it prints."""
        file = repr(str(self.joined))
        load = f"home = {str(self.site)!r}\nexec(compile(open({file}).read(), {file}, 'exec'))"
        plain = f"import sys; sys.path.insert(0, {str(self.site)!r}); import {', '.join(sorted(LAUNCH))}"
        words = [self.python, "-I", "-S", "-c", f"{load if joined else plain}\n{code}"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    root = tmp_path_factory.mktemp("installed") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True, timeout=60)
    installation = Installation(root)
    pip = [sys.executable, "-m", "pip", "--python", str(installation.python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, timeout=60, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (installation.site / "libraries.pth").write_text("\n".join(libraries))
    return installation


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a lock file."""
    directory = tmp_path / "project"
    shutil.copytree(FIXTURES / "wheels", directory / "wheels")
    shutil.copy(FIXTURES / "pylock.toml", directory)
    return directory


# It is made of the sources alone


def test_it_is_the_same_whoever_makes_it(join: ModuleType, texts: dict[str, str], tmp_path: Path) -> None:
    """From another directory, with another order of sets, in a wheel: byte by byte."""
    assert join.join(str(ROOT)) == texts
    for seed, cwd in (("1", tmp_path), ("2", ROOT)):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, JOIN], cwd=cwd, env=env, capture_output=True, text=True, check=True)
        assert done.stdout == "\n\n".join(texts[name] for name in join.FILES)


def test_a_wheel_of_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """It has the files, and RECORD lists them; the source distribution has what makes them, and not the files."""
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        assert not [name for name in archive.getnames() if name.endswith("/joined.py")]
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("envsync-*")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(build(source, "wheel", tmp_path / "wheel")) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())
        assert [name for name in one.namelist() if one.read(name) != other.read(name)] == []
        record = next(name for name in one.namelist() if name.endswith(".dist-info/RECORD"))
        listed = one.read(record).decode()
        assert all(f"envsync/{room}/joined.py,sha256=" in listed for room in ("launch", "waiting"))
    assert list((ROOT / "envsync").rglob("joined.py")) == []


@pytest.mark.parametrize("platform", ["win_amd64", "win_arm64"])
def test_a_wheel_for_windows(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """It has the same modules, a console script in place of the shell's, and nothing joined: no launcher reads it."""
    monkeypatch.setenv("ENVSYNC_WHEEL", platform)
    other = build(ROOT, "wheel", tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert other.name.endswith(f"-py3-none-{platform}.whl")
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(other) as windows:
        ours, theirs = set(archive.namelist()), set(windows.namelist())
        points = {
            each: each.read(f"envsync-{envsync.__version__}.dist-info/entry_points.txt").decode()
            for each in (archive, windows)
        }
        start = windows.read("envsync/__main__.py").decode()
    assert ours - theirs == {name for name in ours if name.endswith(("/joined.py", ".data/scripts/envsync"))}
    assert len(ours - theirs) == 3
    assert theirs <= ours
    assert "console_scripts" not in points[archive]
    assert "[console_scripts]\nenvsync = envsync.__main__:start\n" in points[windows]
    assert "\ndef start(" in start


def test_a_wheel_for_no_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is none is refused."""
    monkeypatch.setenv("ENVSYNC_WHEEL", "win32")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        build(ROOT, "wheel", tmp_path)
    assert "ENVSYNC_WHEEL=win32 is none of any, win_amd64, win_arm64" in caught.value.stderr.decode()


class Stripped(ast.NodeTransformer):
    """Takes out of a module's tree what may be left out, and nothing else."""

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return None
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return None
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            return None
        if isinstance(node, ast.AnnAssign) and node.value is None:
            return None
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.body:
            node.body = [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            return ast.Assign([node.target], node.value)
        return node


def test_each_module_is_its_source(join: ModuleType, texts: dict[str, str]) -> None:
    """Statement by statement, but for docstrings, annotations and what is for type checkers."""
    for file, modules in join.FILES.items():
        functions = {node.name: node for node in ast.parse(texts[file]).body if isinstance(node, ast.FunctionDef)}
        for name in modules:
            declared, *body = functions["_" + name.replace(".", "_")].body
            source = Stripped().visit(ast.parse(Path(join._path(str(ROOT), name)).read_bytes()))
            assert [ast.dump(node) for node in body] == [ast.dump(node) for node in source.body], name
            assert isinstance(declared, ast.Global if body else ast.Pass)


DESCRIBE = """
import json, sys
def about(thing, name):
    kind = type(thing).__name__
    if kind == "function":
        code = thing.__code__
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return [kind, thing.__module__, thing.__qualname__, arguments, code.co_flags & 12,
                repr(thing.__defaults__), repr(thing.__kwdefaults__), thing.__globals__ is vars(sys.modules[name])]
    if kind == "type":
        inside = {key: about(value, name) for key, value in vars(thing).items() if key not in IGNORED}
        return [kind, thing.__module__, thing.__qualname__, [base.__name__ for base in thing.__mro__], inside]
    if kind == "property":
        return [kind, about(thing.fget, name)]
    if kind == "module":
        return [kind, thing.__name__]
    if kind == "Option":
        return [kind, {key: getattr(thing, key) for key in type(thing).__slots__}]
    if kind == "tuple":
        return [kind, [about(each, name) for each in thing]]
    if kind in ("set", "frozenset"):
        return [kind, sorted(map(repr, thing))]
    return [kind, repr(thing).partition(" at 0x")[0]]
IGNORED = {"__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__doc__", "__builtins__",
           "__cached__", "__loader__", "__spec__", "__firstlineno__", "__conditional_annotations__", "annotations"}
found = {}
for name in sorted(each for each in sys.modules if each.partition(".")[0] == "envsync"):
    module = sys.modules[name]
    spec = module.__spec__
    found[name] = {key: about(value, name) for key, value in vars(module).items() if key not in IGNORED}
    found[name]["spec"] = [spec.name, spec.origin, spec.parent, spec.has_location, spec.cached,
                           spec.submodule_search_locations, isinstance(spec.loader, type(sys.__spec__.loader)),
                           module.__loader__ is spec.loader, module.__loader__.get_filename(),
                           "__builtins__" in vars(module)]
print(json.dumps(found))
"""


@pytest.mark.parametrize("waiting", [False, True], ids=["launch", "waiting"])
def test_each_name_is_that_of_the_source(installed: Installation, join: ModuleType, *, waiting: bool) -> None:
    """Loaded in both ways, the modules have the same names: functions, classes, constants, and whence they are."""
    more = f"import {', '.join(join.WAITING)}\n" if waiting else ""
    here = {"envsync.system.posix", "envsync.system.darwin" if sys.platform == "darwin" else "envsync.system.linux"}
    one = json.loads(installed.tell(f"import envsync.cli.run\n{DESCRIBE}" if waiting else DESCRIBE, joined=True))
    other = json.loads(installed.tell(f"{more}{DESCRIBE}", joined=False))
    assert one.keys() == other.keys() == LAUNCH | ({*join.WAITING, *here, "envsync.cli"} if waiting else set())
    for name, names in one.items():
        assert names == other[name], name
    assert sum(map(len, one.values())) > 200


def test_all_that_a_launch_loads_is_in_it(join: ModuleType) -> None:
    """What tests/unit/test_rooms.py sees a launch load."""
    assert set(join.MODULES) == LAUNCH


def test_what_cannot_be_joined_is_refused(join: ModuleType, tmp_path: Path) -> None:
    """A module that is not listed would be read from its own file by each launch: no wheel is built."""
    shutil.copytree(ROOT / "envsync", tmp_path / "envsync")
    source = tmp_path / "envsync/launch/stamp.py"
    more = "\nfrom envsync.launch import messages\nfrom _blake2"
    source.write_text(source.read_text().replace("\nfrom _blake2", more))
    with pytest.raises(ValueError, match=r"envsync.launch.stamp imports envsync.launch.messages: list it"):
        join.join(str(tmp_path))


ODD = '''\
"""What it is for."""
from __future__ import annotations
NAMES: "list[str]" = ["a", *("ä" for _ in range(2))]
"""Whose names."""
TEXT = """ an
    indented text
"""
DATA = f"""{len(
  NAMES)}
  more"""


class Empty(Exception):
    """Nothing."""


class Bare:
    field: int


def many(first: "dict[str, str]", /, ä: int = 1, *rest: str, key: "str | None" = None, **others: "list[int]") -> (
    "tuple[int, int]"
):
    """Do it."""
    inner: int = 1
    later: int
    later = 2

    def nested(x: int) -> int:
        """Nest."""
        return x + inner

    global seen
    seen = 3
    return nested(ä), [y for y in rest]


if (found := many({}, 2, "r")) and [last := each for each in found]:
    import os.path as paths
for turn in range(2):
    try:
        raise Empty
    except Empty as error:
        kept = error
'''


def test_odd_modules(join: ModuleType) -> None:
    """Whatever a module has at its top comes out as if it had been executed itself."""
    plain: dict[str, object] = {"__name__": "odd"}
    exec(compile(ODD, "odd", "exec"), plain)
    text = join.as_function("odd", ODD.encode())
    made: dict[str, object] = {"__name__": "joined"}
    exec(compile(text, "joined", "exec"), made)
    scope: dict[str, object] = {"__name__": "odd"}
    exec(made["_odd"].__code__, scope)  # type: ignore[attr-defined]
    assert scope.keys() | {"__doc__", "__annotations__", "annotations"} >= plain.keys() - {"__annotate__"}
    for name in ("NAMES", "TEXT", "DATA", "found", "last", "turn", "seen"):
        assert scope[name] == plain[name]
    for name in ("Bare", "Empty", "many"):
        assert scope[name].__qualname__ == name  # type: ignore[attr-defined]
        assert scope[name].__module__ == "odd"  # type: ignore[attr-defined]
    assert Stripped().visit(ast.parse(ODD)).body[-1]
    assert "What it is for" not in text
    assert "int" not in text.replace("inner", "")


# A launch of it


def own_calls(installed: Installation, words: list[str], cwd: Path, log: Path) -> list[str]:
    """Return the system calls of a launch that name a file of envsync's, or work on one that is open."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace = ["strace", "-f", "-y", "-o", str(log), str(installed.launcher), *words]
    done = subprocess.run(strace, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    if "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return [call for call in log.read_text().splitlines() if re.search(r"site-packages(/envsync\b|[\">])", call)]


def is_own(call: str, project: Path) -> bool:
    return str(project) not in call


DIGEST = ["--env", "envs/{digest}", "--python", f"{sys.version_info[0]}.{sys.version_info[1]}"]


@pytest.mark.parametrize("options", [[], DIGEST], ids=["", "by digest"])
def test_what_a_launch_reads_of_its_own(
    installed: Installation, project: Path, tmp_path: Path, options: list[str]
) -> None:
    """One file: to look at it, and to open, measure, read and close its bytecode."""
    installed.run("run", *options, "--", "true", cwd=project)
    installed.run("run", *options, "--", "true", cwd=project)  # Python may have had bytecode to write
    calls = own_calls(installed, ["run", *options, "--", "true"], project, tmp_path / "trace")
    ours = [call for call in calls if is_own(call, project)]
    assert 0 < len(ours) <= MOST_CALLS, "\n".join(ours)
    assert all("joined" in call for call in ours), "\n".join(ours)


def test_what_a_launch_reads_of_its_own_that_tells_of_it(
    installed: Installation, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files, each as above: the second one has what writes the event."""
    installed.run("run", "--", "true", cwd=project)
    monkeypatch.setenv("ENVSYNC_EVENTS", str(tmp_path / "events"))
    calls = own_calls(installed, ["run", "--", "true"], project, tmp_path / "trace")
    assert '"launched"' in (tmp_path / "events").read_text()
    check_two_files(calls, project)


def check_two_files(calls: list[str], project: Path) -> None:
    ours = [call for call in calls if is_own(call, project)]
    assert MOST_CALLS < len(ours) <= 2 * MOST_CALLS, "\n".join(ours)
    assert all("joined" in call for call in ours), "\n".join(ours)


def test_what_the_first_launch_of_a_job_reads_of_its_own(
    installed: Installation, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files, each as above: the second one has what leaves the job's name in the environment."""
    monkeypatch.setenv("SLURM_JOB_ID", f"{time.time_ns()}")
    installed.run("run", "--", "true", cwd=project)
    holders = project / ".venv/.envsync/holders"
    shutil.rmtree(holders)
    monkeypatch.setenv("SLURM_JOB_ID", f"{time.time_ns()}")
    calls = own_calls(installed, ["run", "--", "true"], project, tmp_path / "trace")
    assert len(list(holders.iterdir())) == 1
    check_two_files(calls, project)


def test_a_miss_and_a_hit(installed: Installation, project: Path) -> None:
    """A sync after the fast lane did not know, and then the fast lane; by a relative path, too, and from elsewhere."""
    done = installed.run("run", "--", "greet", cwd=project)
    assert done.stdout == "HELLO, WORLD!\n"
    assert "5 installed" in done.stderr
    assert installed.run("run", "--", "greet", cwd=project).stderr == ""
    shutil.rmtree(project / ".venv")
    relative = os.path.relpath(installed.launcher, project.parent)
    for said in ("5 installed", ""):
        words = [relative, "run", "--directory", "project", "--", "greet"]
        done = subprocess.run(words, cwd=project.parent, capture_output=True, text=True, check=True, timeout=60)
        assert (done.stdout, said in done.stderr) == ("HELLO, WORLD!\n", True)


def test_errors_are_told_as_ever(installed: Installation, tmp_path: Path) -> None:
    """With a hint by the fast lane and by the rest; and a traceback, for those who ask for it, names the function."""
    done = installed.run("run", "true", cwd=tmp_path, status=125)
    assert "envsync: error: " in done.stderr
    assert "\nhint: " in done.stderr
    assert "hint: `envsync --help`" in installed.run("nonsense", cwd=tmp_path, status=2).stderr
    code = "import traceback\nlane = sys.modules['envsync.launch.fast_lane']\ntry: lane.enter(None, None)\n"
    code += "except AttributeError: traceback.print_exc(file=sys.stdout)"
    said = installed.tell(code, joined=True)
    assert "in enter\n    fd = command.open_lock(environment.in_use" in said


ONE = """
import sys, os
registered = []
os.register_at_fork = lambda **handlers: registered.append(handlers)
from envsync.launch.libraries import load_site
before = dict(sys.modules)
load_site()
import envsync.cli.run
import envsync, envsync.locks.flock as flock, envsync.system.forks as forks, importlib, inspect, pickle
from envsync.launch import command, names, stamp
import envsync.launch.request
assert command is before["envsync.launch.command"] is flock.command is envsync.launch.command
assert type(names.__spec__.loader) is type(command.__spec__.loader)
assert all(sys.modules[name] is module for name, module in before.items() if name.startswith("envsync"))
held = command.held
assert pickle.loads(pickle.dumps(stamp.Site)) is stamp.Site
assert inspect.getsource(command.open_lock).startswith("def open_lock(path") or JOINED_IS
assert "def open_lock(path, flags, mode" in inspect.getsource(command.open_lock) or not JOINED_IS
assert "Become the command: the last step" in inspect.getsource(command)
assert importlib.reload(stamp) is stamp and stamp.Site.__doc__
assert envsync.launch.command.held is held
print(len(registered), sys.path.count(home), [os.path.basename(path) for path in sys.path])
"""


def test_one_object_of_each_module(installed: Installation) -> None:
    """Whoever imports a module later gets the one that is loaded, with its state; fork handlers are registered once."""
    home = f"home = {str(installed.site)!r}\n"
    joined = installed.tell(f"{home}JOINED_IS = True\n{ONE}", joined=True)
    assert joined == installed.tell(f"{home}JOINED_IS = False\n{ONE}", joined=False)
    assert joined.split()[1] == "1"


def test_others_do_without(installed: Installation, tmp_path: Path) -> None:
    """`python -m envsync` and programs import the modules; the file itself is for nobody to import."""
    run = [installed.python, "-I"]
    done = subprocess.run([*run, "-m", "envsync", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("envsync ")
    code = """
import envsync, sys
envsync.sync
from envsync.launch import command
try:
    import envsync.launch.joined
except ImportError as error:
    print(error)
assert sys.modules["envsync.launch.command"] is command
assert command.__doc__
"""
    done = subprocess.run([*run, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "this file is for the launcher alone: import envsync\n"


def test_a_waiter_reads_two_files(installed: Installation, project: Path) -> None:
    """All of envsync that one loads who waits to the end is joined."""
    installed.run("sync", "--env", ".env", cwd=project)
    teller = installed.launcher.with_name("teller")
    loader = "type(module.__spec__.loader).__name__"
    tell = TELL.replace(
        "*sys.modules", f'*(f"{{name}}={{{loader}}}" for name, module in sys.modules.items() if ENVSYNC)'
    )
    tell = tell.replace("ENVSYNC", 'name.startswith("envsync")')
    teller.write_text(installed.launcher.read_text().replace("\ngc.disable()\n", f"\ngc.disable()\n{tell}", 1))
    teller.chmod(0o755)
    loaders = dict(each.split("=") for each in wait_to_the_end(project, [str(teller)]).splitlines()[0].split())
    assert len(loaders) > 40
    assert {name for name, loader in loaders.items() if loader != "Loader"} == set()


@pytest.mark.parametrize("spoil", ["gone", "spoiled", "another", "waiting"])
def test_without_it_modules_are_imported(installed: Installation, project: Path, tmp_path: Path, spoil: str) -> None:
    """Whatever is wrong with the file, a launch takes the modules themselves."""
    installed.run("run", "true", cwd=project)
    copy = tmp_path / "copy"
    shutil.copytree(installed.launcher.parent.parent, copy, symlinks=True)
    other = Installation(copy)
    shutil.rmtree(other.joined.parent / "__pycache__")
    if spoil == "gone":
        other.joined.unlink()
    elif spoil == "waiting":
        (other.site / "envsync/waiting/joined.py").write_text("def")
        shutil.rmtree(other.site / "envsync/waiting/__pycache__")
        shutil.rmtree(project / ".venv")
    else:
        other.joined.write_text("def" if spoil == "spoiled" else "import no_such_module")
    assert other.run("run", "greet", cwd=project).stdout == "HELLO, WORLD!\n"
    module = "waiting/__pycache__/bare" if spoil == "waiting" else "launch/__pycache__/stamp"
    assert (other.site / f"envsync/{module}.{sys.implementation.cache_tag}.pyc").exists()
