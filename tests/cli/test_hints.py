"""The hints of all errors: each command in one can be run, and does something where the error is met."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import pytest

from envsync.cli import main
from tests.conftest import ROOT, envsync_command
from tests.environments import FIXTURES, site_packages
from tests.projects import make_project, make_sdist
from tests.unit.fetching.server import File, serving
from tests.wheels import build_wheel, sha256_of

SOURCE = Path(__file__).parents[2] / "envsync"
TRANSLATING = SOURCE / "system/powershell.py"
"""It has patterns of hints, and none of its own."""
LOCK = str(FIXTURES / "pylock.toml")
TOOLS = ("uv", "pip", "pdm", "poetry", "pipenv", "pipx")
PROGRAMS = (
    f"envsync|{'|'.join(TOOLS)}|sed|ls|ln|mv|rm|env|cd|echo|iconv|mkdir|chmod|kill|unset|export|df|ulimit|cp|less"
)
COMMAND = re.compile(rf"`((?:{PROGRAMS})\b[^`]*)`")


class Scene(NamedTuple):
    """Where an error is met: files are made, and a command line is run.

    :ivar during: what is the case meanwhile, and if `lasting`, still when the command is run that was hinted at
    :ivar then: what a person does as they are told before they run it
    :ivar faults: what the filesystem of the directory does, as for `tests.odd.faults`; also to what was hinted at,
        unless they are `passing`
    :ivar raising: Python code of a fault of ours
    :ivar told: it is in a report or in a line for whoever waits, instead of the hint of an error
    :ivar status: what the command exits with that was hinted at: 1 says that it found what it was to find
    """

    words: tuple[str, ...]
    make: Callable[[Path], object] = lambda directory: None
    variables: dict[str, str | None] = {}  # noqa: RUF012
    during: Callable[[Path], AbstractContextManager[object]] = nullcontext
    lasting: bool = False
    then: Callable[[Path], object] = lambda directory: None
    faults: dict[str, object] = {}  # noqa: RUF012
    passing: bool = False
    raising: str = ""
    told: bool = False
    status: int = 0

    def program(self, directory: Path) -> list[str]:
        if self.faults:
            spec = {**self.faults, "below": str(directory / str(self.faults.get("below", "")))}
            return [sys.executable, "-m", "tests.odd.faults", json.dumps(spec)]
        if self.raising:
            start = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from envsync.launch import request
def resolve(*_): {self.raising}
request.resolve = resolve
from envsync.__main__ import start
start()
"""
            return [sys.executable, "-c", start]
        return envsync_command()


def writes(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text)


def bad_wheel(directory: Path) -> None:
    wheel = Path(build_wheel(directory, "bad", "1.0", {"bad.py": ""}, wheel="Wheel-Version: 9.0\n"))
    (directory / "requirements.txt").write_text(f"./{wheel.name}\n")


def lock_file(directory: Path) -> None:
    shutil.copytree(FIXTURES / "wheels", directory / "wheels")
    shutil.copy(FIXTURES / "pylock.toml", directory)


def a_project_of_uvs(directory: Path) -> None:
    """A project that wants one wheel, with its lock file."""
    wheel = FIXTURES / "wheels" / "tally-1.0-py3-none-any.whl"
    (directory / "pyproject.toml").touch()
    (directory / "uv.lock").write_text(f"""\
version = 1
requires-python = ">=3.9"

[[package]]
name = "project"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "tally" }}]

[[package]]
name = "tally"
version = "1.0"
source = {{ path = "{wheel}" }}
wheels = [{{ filename = "{wheel.name}", hash = "sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" }}]
""")


def two_lock_files(directory: Path) -> None:
    a_project_of_uvs(directory)
    (directory / "pdm.lock").touch()


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


def sync(directory: Path, *options: str) -> None:
    words = (*envsync_command(), "sync", "-q", "--lock", LOCK, "--env", "env", *options)
    subprocess.run(words, cwd=directory, check=True)


def named_by_digest(directory: Path) -> None:
    sync(directory, "--env", ".venvs/{digest}")


def spoil(path: Path) -> None:
    """Write through the hard link into the cache: the wheel cannot be had from there any more."""
    path.chmod(0o644)
    path.write_bytes(b"#" * path.stat().st_size)


def damaged(directory: Path) -> None:
    sync(directory)
    spoil(site_packages(directory / "env") / "shout.py")


def damaged_copy(directory: Path) -> None:
    sync(directory, "--link-mode", "copy")
    spoil(site_packages(directory / "env") / "shout.py")


def damaged_cache(directory: Path) -> None:
    sync(directory, "--cache-dir", "cache", "--link-mode", "copy")
    spoil(next((directory / "cache" / "v1" / "wheels").rglob("shout.py")))


def in_the_way(directory: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=directory, check=True)
    (site_packages(directory / "env") / "shout.py").write_text("mine = 1\n")


def newer(directory: Path) -> None:
    sync(directory)
    (directory / "env" / ".envsync" / "locking").write_text('{"format": 999, "how": "flock"}\n')


def a_directory_for_a_wheel(directory: Path) -> None:
    lock_file(directory)
    (directory / "wheels" / "shout-1.0-py3-none-any.whl").unlink()
    (directory / "wheels" / "shout-1.0-py3-none-any.whl").mkdir()


def another_wheel(directory: Path) -> None:
    """The hash that the lock file has is that of another wheel, which is in the cache."""
    sync(directory)
    lock = Path(LOCK).read_text()
    greet, shout = (sha256_of(str(FIXTURES / "wheels" / f"{name}-1.0-py3-none-any.whl")) for name in ("greet", "shout"))
    (directory / "pylock.toml").write_text(lock.replace(greet, shout))


def a_pipe_for_a_lock_file(directory: Path) -> None:
    os.mkfifo(directory / "lock.txt")


def synced_with_another_lock_file(directory: Path) -> None:
    """The environment beside them is that of the first."""
    for name, line in (("one.txt", "greet"), ("two.txt", "shout")):
        (directory / name).write_text(f"--no-index\n--find-links {FIXTURES}/wheels\n{line}==1.0\n")
    sync(directory, "--lock", "one.txt", "--env", ".venv")


def a_netrc(directory: Path) -> None:
    Path("~/.netrc").expanduser().write_text("")


@contextmanager
def served(directory: Path, auth: tuple[str, str] | None = None) -> Iterator[None]:
    """A wheel, named by its URL, from a server."""
    wheel = build_wheel(directory, "greet", "1.0", {"greet.py": ""})
    with serving() as server:
        name = os.path.basename(wheel)
        server.files[f"/{name}"] = File(Path(wheel).read_bytes(), auth=auth)
        line = f"greet @ {server.url}/{name} --hash=sha256:{sha256_of(wheel)}\n"
        (directory / "requirements.txt").write_text(line)
        yield


@contextmanager
def an_index_that_is_none(directory: Path) -> Iterator[None]:
    wheel = str(FIXTURES / "wheels" / "shout-1.0-py3-none-any.whl")
    with serving() as server:
        server.files["/shout/"] = File(b"welcome")
        line = f"shout==1.0 --hash=sha256:{sha256_of(wheel)}\n--index-url {server.url}\n"
        (directory / "requirements.txt").write_text(line)
        yield


HOLD = """\
import fcntl, os, sys
for path in sys.argv[1:]:
    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def held(*paths: Path, stopped: bool = False) -> Iterator[None]:
    """Somebody else holds locks."""
    words = [sys.executable, "-c", HOLD, *map(str, paths)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.kill()


def environment_lock(directory: Path, *, stopped: bool = False) -> AbstractContextManager[None]:
    return held(directory / "env" / ".lock", stopped=stopped)


def cache_locks(directory: Path) -> AbstractContextManager[None]:
    return held(directory / "cache" / ".gate", directory / "cache" / ".lock")


def with_cache(directory: Path) -> None:
    sync(directory, "--cache-dir", "cache")


def uv_project(directory: Path, kind: str = "editable", members: str = "", besides: str = "") -> None:
    """A lock file of uv whose project requires a wheel, and has to be built if it is not virtual.

    :param besides: what else it requires, a directory
    """
    wheel = FIXTURES / "wheels" / "shout-1.0-py3-none-any.whl"
    (directory / "uv.lock").write_text(
        f"""\
version = 1
requires-python = ">=3.9"
manifest = {{ members = [{members}] }}
package = [
    {{ name = "p", version = "1.0", source = {{ {kind} = "." }}, dependencies = [
        {{ name = "shout" }}, {besides and f'{{ name = "{besides}" }}'}
    ] }},
    {{ name = "shout", version = "1.0", source = {{ path = "{wheel}" }}, wheels = [
        {{ filename = "{wheel.name}", hash = "sha256:{sha256_of(str(wheel))}" }},
    ] }},
{besides and f'{{ name = "{besides}", source = {{ directory = "{besides}" }} }},'}
]
"""
    )


def in_tree(directory: Path, *, imports: str = "sys", locked: Iterable[str] = (), **project: Any) -> None:
    """A project of uv that has to be built, and some wheels beside it.

    :param imports: a module that its backend imports, and does not have
    :param locked: wheels that its lock file has as well, as in `foo-1.0`
    """
    make_project(directory, "p", **project)
    backend = directory / "backend/in_tree_backend.py"
    backend.write_text(f"{backend.read_text()}import {imports}\n")
    wheels = directory / "wheels"
    wheels.mkdir()
    build_wheel(wheels, "setuptools", "80.0", {"pkg_resources.py": ""})
    build_wheel(wheels, "setuptools", "81.0", {"setuptools.py": ""})
    build_wheel(wheels, "numpy", "1.0", {"numpy.py": ""})
    packages = ['{ name = "p", version = "1.0", source = { editable = "." }, dependencies = [']
    packages += [f'{{ name = "{each.partition("-")[0]}" }},' for each in locked] + ["] },"]
    for each in locked:
        name, _, version = each.partition("-")
        wheel = wheels / f"{each}-py3-none-any.whl"
        packages.append(
            f'{{ name = "{name}", version = "{version}", source = {{ path = "{wheel}" }}, wheels = [ '
            f'{{ filename = "{wheel.name}", hash = "sha256:{sha256_of(str(wheel))}" }} ] }},'
        )
    text = "\n".join(packages)
    (directory / "uv.lock").write_text(f'version = 1\nrequires-python = ">=3.9"\npackage = [\n{text}\n]\n')


def own(**values: Any) -> Callable[[Path], object]:
    return lambda directory: in_tree(directory, **values)


SHOUT = f"{FIXTURES}/wheels/shout-1.0-py3-none-any.whl\n"
NEAR = ("sync", "--no-index", "--find-links", "wheels")
FAILING = Scene(("sync",), own(fails="boom"))


def a_bundle(directory: Path) -> None:
    lock_file(directory)
    subprocess.run([*envsync_command(), "bundle", "-q", "--to", "bundle"], cwd=directory, check=True)


def damaged_bundle(directory: Path) -> None:
    a_bundle(directory)
    spoil(next((directory / "bundle").glob("wheels/*/shout-*")))


def bytecode_that_is_gone(directory: Path) -> None:
    lock_file(directory)
    words = ("bundle", "-q", "--to", "bundle", "--compile-bytecode")
    subprocess.run([*envsync_command(), *words], cwd=directory, check=True)
    shutil.rmtree(directory / "bundle" / "bytecode")


def bundle_lock(directory: Path) -> AbstractContextManager[None]:
    return held(directory / "bundle/.lock")


def only_an_archive(directory: Path) -> None:
    make_sdist(make_project(directory / "tree", "packed"), filename="packed-1.0.tar.gz")
    (directory / "requirements.txt").write_text(f"./packed-1.0.tar.gz\n{SHOUT}")


def two_kinds_of_lock_files(directory: Path) -> None:
    uv_project(directory, "virtual")
    (directory / "requirements.txt").touch()


def strange_pin(directory: Path) -> None:
    (directory / "uv.lock").write_text('version = 1\nrevision = 3\nrequires-python = ">=3.9"\n')
    (directory / ".python-version").write_text("system\n")


SYNC = ("sync", "--lock", LOCK, "--env", "env")
AFRESH = ("sync", "--lock", str(FIXTURES / "pylock.next.toml"), "--env", "env")
NO_SPACE = Scene(SYNC, faults={"rename": ["ENOSPC", 10_000, 0], "link": "ENOSPC"})
NO_FLOCK = Scene(SYNC, faults={"flock": "ENOSYS"})
LOCKED = Scene((*AFRESH, "--timeout", "0.2"), sync, during=environment_lock)
SCRATCH = '[tool.envsync]\nenv = "${NOT_SET}/env"\n'
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
    "envsync sync --lock {}": Scene(("sync", "--lock", "pyproject.toml", "--env", "env"), a_project_of_uvs),
    "envsync sync --env {}": Scene(("sync", "--lock", "two.txt"), synced_with_another_lock_file),
    "envsync sync --mirrors https://a.example=https://b.example": Scene(
        ("sync", "--lock", LOCK, "--env", "env", "--mirrors", "nonsense")
    ),
    "envsync sync --no-locked": Scene(("sync", "--lock", LOCK, "--env", "env", "--locked")),
    "uv init --bare && uv lock": Scene(("sync",)),
    "uv export --script {} --format pylock.toml --output-file {}": Scene(
        ("sync", "--lock", "job.py"), writes("job.py", '# /// script\n# dependencies = ["absent"]\n# ///\nprint()\n')
    ),
    "sed -n {}p {}": Scene(("sync",), writes("requirements.txt", "fine==1.0\nfoo bar\n")),
    "pip wheel --no-deps --wheel-dir wheels {}": Scene(
        ("sync",), writes("requirements.txt", "proj @ hg+https://hg.invalid/proj\n")
    ),
    "pip download --no-deps {}": Scene(("sync", "--offline"), PINNED),
    "pip wheel --no-deps --wheel-dir wheels --no-binary {} {}": Scene(("sync",), bad_wheel),
    "ls -la {}": Scene(("sync", "--no-index", "--find-links", "no where"), PINNED),
    "ls -a {}": Scene(("sync", "--lock", "no such.toml")),
    "rm {}": Scene(("run", "--lock", str(FIXTURES / "pylock.next.toml"), "--env", "env", "--", "true"), a_pipe),
    "ls -l {}": Scene(("run", "--lock", LOCK, "--env", "env", "--", "./job.py"), writes("job.py", "")),
    "chmod 600 ~/.netrc": Scene(
        ("sync",), a_netrc, during=lambda directory: served(directory, ("user", "password")), lasting=True
    ),
    "df -h {}": NO_SPACE,
    "envsync cache prune": NO_SPACE,
    "echo 3.12 > {}": Scene(("sync",), strange_pin),
    "echo --trusted-host {} >> requirements.txt": Scene(
        ("sync",), writes("requirements.txt", "absent==1.0\n--index-url http://index.invalid/simple\n")
    ),
    "env | grep -iE 'proxy|ssl_cert'": Scene(("sync",), PINNED, {"ALL_PROXY": "nonsense://127.0.0.1:1"}),
    "envsync cache prune --timeout 600": Scene(
        ("cache", "prune", "--cache-dir", "cache", "--timeout", "0.2"), with_cache, during=cache_locks
    ),
    "envsync cache verify": Scene(
        ("sync", "--lock", LOCK, "--env", "other", "--cache-dir", "cache"),
        damaged_cache,
        faults={"below": "cache", "rename": ["EACCES", 10_000, 0]},
        passing=True,
        status=1,
    ),
    "envsync bundle --to bundle": Scene(("bundle", "verify", "."), lock_file),
    "envsync bundle verify {}": Scene(
        ("sync", "--lock", "bundle/pylock.toml", "--env", "env", "--cache-dir", "cache", "--compile-bytecode"),
        bytecode_that_is_gone,
        told=True,
        status=1,
    ),
    "envsync bundle --to {}": Scene(("bundle", "verify", "bundle"), damaged_bundle, told=True),
    "envsync bundle --platform manylinux_2_28_x86_64": Scene(
        ("bundle", "--lock", LOCK, "--to", "bundle", "--platform", "plan9_mips")
    ),
    "envsync bundle --no-install-package {}": Scene(
        ("bundle", "--to", "bundle", "--platform", "manylinux_2_28_x86_64"), only_an_archive
    ),
    "envsync bundle --help": Scene(
        ("bundle", "--to", "bundle", "--platform", "win_amd64"),
        writes("requirements.txt", f"{FIXTURES}/wheels/shout-1.0-py3-none-any.whl ; platform_release != '1'\n"),
    ),
    "envsync bundle --timeout 600": Scene(
        ("bundle", "--to", "bundle", "--timeout", "0.2"), a_bundle, during=bundle_lock
    ),
    "envsync bundle prune {} --timeout 600": Scene(
        ("bundle", "prune", "bundle", "--timeout", "0.2"), a_bundle, during=bundle_lock
    ),
    "envsync sync --env '/var/tmp/{user}/{digest}'": Scene(("sync", "--lock", "bundle/pylock.toml"), a_bundle),
    "envsync check": Scene(SYNC, in_the_way),
    "envsync check --repair": Scene(("check", "--env", "env"), damaged_copy, told=True),
    "envsync check --repair --lock pylock.toml": Scene(("check", "--repair", "--env", "env"), damaged, then=lock_file),
    "envsync doctor": Scene(SYNC, faults={"rename": ["EIO", 10_000, 0]}, passing=True),
    "envsync status": LOCKED,
    "envsync sync --timeout {}": LOCKED,
    "envsync sync --timeout 600": Scene(
        (*AFRESH, "--cache-dir", "cache", "--timeout", "0.2"), with_cache, during=cache_locks
    ),
    "envsync sync --busy ignore": NO_FLOCK,
    "envsync sync --cache-dir /var/tmp/envsync": Scene(
        ("doctor",), lock_file, {"HOME": "relative", "XDG_CACHE_HOME": None}, told=True
    ),
    "envsync sync --cache-dir {}": Scene((*SYNC, "--cache-dir", "cache"), writes("cache", "")),
    "envsync sync --lock requirements.txt": Scene(
        ("sync", "--lock", "lock.txt"),
        a_pipe_for_a_lock_file,
        then=writes("requirements.txt", f"{FIXTURES}/wheels/shout-1.0-py3-none-any.whl\n"),
    ),
    "envsync sync --no-offline": Scene(("sync", "--offline"), during=served, lasting=True),
    "envsync sync --offline": Scene(("sync",), during=an_index_that_is_none, lasting=True, then=sync),
    "envsync sync --no-config": Scene(
        ("sync", "--lock", LOCK, "--env", "env"),
        writes("site.toml", "nonsense"),
        variables={"ENVSYNC_SITE_CONFIG": "site.toml"},
    ),
    "export {}=/path": Scene(("sync", "--lock", "pylock.toml"), writes("pyproject.toml", SCRATCH)),
    "export {}=1": Scene(("sync",), raising="raise ValueError('odd')"),
    "pip install --force-reinstall envsync": Scene(("sync",), raising="import no_such_module"),
    "cd /": Scene(("sync",), raising="import os; os.mkdir('x'); os.chdir('x'); os.rmdir('../x'); os.getcwd()"),
    "ulimit -v": Scene(("sync",), raising="raise MemoryError"),
    "ulimit -n": Scene(SYNC, sync, faults={"open": ["EMFILE", 10_000, 0]}),
    "kill -CONT {}": Scene(
        (*AFRESH, "--timeout", "1.5"),
        sync,
        during=lambda directory: environment_lock(directory, stopped=True),
        lasting=True,
        told=True,
    ),
    "ls -ld {}": Scene(("sync",), a_directory_for_a_wheel),
    "pip download --no-deps {}=={}": Scene(("sync",), another_wheel),
    "pip index versions {}": Scene(
        ("sync", "--no-index", "--find-links", str(FIXTURES / "wheels")), writes("requirements.txt", "shout==7.0\n")
    ),
    "pip install --upgrade envsync": Scene(AFRESH, newer),
    "ls {}": Scene(("run", "--lock", LOCK, "--env", "env", "--", "no-such-command")),
    "uv lock": Scene(("sync",), writes("uv.lock", "version = 2\n")),
    "envsync sync --no-install-project": Scene(("sync", "--no-build"), uv_project),
    "envsync sync --no-install-workspace": Scene(
        ("sync", "--no-build"), lambda directory: uv_project(directory, members='"p"')
    ),
    "less {}": FAILING,
    "envsync sync --build-constraint 'setuptools<81'": Scene(
        NEAR, own(imports="pkg_resources", build_requires=["setuptools"])
    ),
    "envsync sync --no-build-isolation-package {}": Scene(NEAR, own(imports="numpy", locked=["numpy-1.0"])),
    "envsync sync --no-editable": Scene(("sync",), own(editable=False)),
    "envsync sync --config-setting key=value": Scene(("sync", "--config-setting", "nonsense"), own()),
    "envsync sync --trusted-builder root": Scene(("sync", "--trusted-builder", "no such user"), own()),
    "envsync sync --no-build": Scene(
        ("sync",), writes("requirements.txt", "--no-build\n"), then=writes("requirements.txt", SHOUT)
    ),
    "envsync sync --no-build-isolation": Scene(
        ("sync",), writes("requirements.txt", "--no-build-isolation\n"), then=writes("requirements.txt", SHOUT)
    ),
    "envsync sync --no-install-package {}": Scene(
        ("sync", "--no-build"), lambda directory: uv_project(directory, "virtual", besides="d")
    ),
    "envsync sync --package {}": Scene(("sync", "--package", "q"), lambda directory: uv_project(directory, "virtual")),
    "envsync sync --lock uv.lock": Scene(
        ("sync", "--lock", "requirements.txt", "--package", "p"), two_kinds_of_lock_files
    ),
    "envsync env list '.venvs/{digest}'": Scene(("env", "list", ".venv")),
    "envsync env list {}": Scene(("env", "show", f".venvs/{'0' * 32}")),
    "envsync env prune {} --older-than 30d": Scene(("env", "prune", ".venvs/{digest}"), named_by_digest),
    "envsync shim --jupyter my-project": Scene(
        ("shim", "--jupyter", "a b", "--lock", LOCK), variables={"JUPYTER_DATA_DIR": "jupyter"}
    ),
    "envsync shim {}-2": Scene(("shim", "--lock", LOCK, "there"), writes("there", "somebody's\n")),
    "export JUPYTER_DATA_DIR=/path/to/jupyter": Scene(
        ("shim", "--jupyter", "x", "--lock", LOCK),
        variables={"HOME": "relative", "XDG_DATA_HOME": None, "JUPYTER_DATA_DIR": None},
    ),
    "export {}=...": Scene(("shim", "py", "--lock", LOCK, "--index-url", "https://user:password@host.test/")),
    "envsync env prune {} --yes": Scene(("env", "prune", ".venvs/{digest}"), named_by_digest),
}
WITHOUT_SCENE = {
    "uv add": "is what integrations hint at (tests/engines)",
    "uv pip compile": "is what integrations hint at (tests/engines)",
    "envsync cache prune --unused-for 90d": "needs a cache of root's that others link to (tests/rooms)",
    "envsync cache size": "needs a filesystem that notes no reading (noatime)",
    "envsync sync --build-with uv": "needs a Python without ensurepip (tests/unit/building)",
    "envsync sync --build-with pip": "needs a host without uv (tests/unit/building)",
    "envsync bundle --platform manylinux_2_28_x86_64 --to bundle-2": "needs a Python without the GIL, too",
    "envsync sync --cache-dir {}-2": "needs a git repository in the cache that is another user's",
    "envsync doctor --env /var/tmp/venv": "needs a filesystem that loses flock while it is used",
    "envsync sync --env '/var/tmp/venvs/{digest}'": "needs a filesystem that does not tell case apart (tests/odd)",
    "envsync sync --cache-fallback /var/tmp/envsync-fallback": "needs a read-only cache (tests/contention)",
    "envsync sync --index-url {}": "names the default index, which no test asks",
    "envsync sync --link-mode copy": "needs a filesystem that refuses to change modes",
    "envsync sync --python {}": "needs another Python (tests/unit/lockfile)",
    "pipx install envsync": "needs an installation in the environment",
    "ulimit -a": "needs three leaders that die one after the other (tests/contention)",
}


def texts() -> Iterator[str]:
    """All texts of the source but docstrings; what is filled in is `{}`."""
    for path in sorted(set(SOURCE.rglob("*.py")) - {TRANSLATING}):
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
    names = {"envsync {}{}{}", "envsync", "envsync.use"}  # what is completed, an option of Dask's, and a function
    return {command for text in texts() for command in COMMAND.findall(text) if "[a-z]" not in command} - names


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
                    not text
                    or "`" in text
                    or text.startswith(("{}", "install one, or {}", "find out who, or {}", "leave it out, or {}"))
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
    group = main.envsync_command.commands[words[0]]
    if words[0] in ("cache", "env") or words[1:2] in (["verify"], ["prune"]):
        group, words = group.commands[words[1]], words[1:]  # type: ignore[attr-defined]
    group.make_context(words[0], words[1:])


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Stand-ins for the tools of others, which need an index: they want something to do, and say that they did it."""
    directory = tmp_path / "tools"
    directory.mkdir()
    stub = '#!/bin/sh\n[ $# -gt 1 ] || [ "$*" = lock ] || exit 2\ncase "$*" in *--wheel-dir\\ wheels) exit 2;; esac\n'
    for name in TOOLS:
        (directory / name).write_text(stub)
        (directory / name).chmod(stat.S_IRWXU)
    return directory


def provide(tools: Path, words: list[str]) -> None:
    """Let `envsync` be that program."""
    ours = tools / "envsync"
    ours.write_text("#!/bin/sh\nexec " + " ".join(map(quote, words)) + ' "$@"\n')
    ours.chmod(stat.S_IRWXU)


@pytest.mark.empty_cache
@pytest.mark.parametrize("command", SCENES)
def test_a_hinted_command_can_be_run_where_it_is_hinted_at(tmp_path: Path, tools: Path, command: str) -> None:
    """It is taken out of the message as it stands, with the options of the command line, and succeeds."""
    scene = SCENES[command]
    work = tmp_path / "work"
    work.mkdir()
    scene.make(work)
    changed = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT) if scene.faults else None}
    variables = {
        name: value for name, value in {**os.environ, **changed, **scene.variables}.items() if value is not None
    }
    program = scene.program(work)
    provide(tools, envsync_command() if scene.raising or scene.passing else program)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=work,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    with ExitStack() as meanwhile:
        meanwhile.enter_context(scene.during(work))
        done = run(*program, *scene.words)
        if not scene.lasting:
            meanwhile.close()
        hint = done.stdout + done.stderr if scene.told else done.stderr.splitlines()[-1]
        assert scene.told or done.returncode not in (0, 1), done.stderr
        assert scene.told or hint.startswith("hint: "), done.stderr
        start, *rest = command.replace("'", "").partition(" {")[0].split(" -")
        plain = [(each, each.replace("'", "")) for each in COMMAND.findall(hint)]
        found = [each for each, words in plain if words.startswith(start) and all(f"-{part}" in words for part in rest)]
        assert found, hint
        scene.then(work)
        # What is named as an example outside of a test's directory is put into it.
        again = run("sh", "-c", found[0].replace("/var/tmp/", f"{tmp_path}/"))
        assert again.returncode == scene.status, (found[0], again.stderr)
