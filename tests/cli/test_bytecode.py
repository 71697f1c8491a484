"""`--compile-bytecode`: every module has valid bytecode, linked from the cache, that goes with its distribution."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import resource
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib._bootstrap_external import (  # type: ignore[import-not-found]
    _classify_pyc,
    _validate_timestamp_pyc,
)
from pathlib import Path

import pytest

from tests.conftest import envsync_command
from tests.environments import FIXTURES, leftovers, site_packages, unverified
from tests.wheels import build_wheel, sha256_of

LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")
Run = Callable[..., subprocess.CompletedProcess[str]]
Files = Mapping[str, str | bytes]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENVSYNC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sync(run: Run, lock: str | Path, *options: str, env: str = "env", compiled: bool = True) -> dict[str, object]:
    words = ["--compile-bytecode"] if compiled else []
    done = run("sync", "--lock", lock, "--env", env, "--json", *words, *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def check(run: Run, *options: str) -> tuple[set[tuple[str, str, str]], dict[str, object]]:
    """Return what was found, as (kind, file name, distribution), and all that was said."""
    done = run("check", "--env", "env", "--json", *options)
    assert done.stdout, done.stderr
    said = dict(json.loads(done.stdout))
    found = {(each["kind"], os.path.basename(each["path"]), each["distribution"]) for each in said["findings"]}
    return found, said


def lock_of(directory: Path, name: str, *wheels: str) -> Path:
    """Write a lock file for wheels."""
    text = 'lock-version = "1.0"\ncreated-by = "tests"\n'
    for path in wheels:
        distribution, version = os.path.basename(path).split("-")[:2]
        hashes = f'{{ sha256 = "{sha256_of(path)}" }}'
        text += f'[[packages]]\nname = "{distribution}"\nversion = "{version}"\n'
        text += f'wheels = [{{ path = "{path}", hashes = {hashes} }}]\n'
    lock = directory / f"pylock.{name}.toml"
    lock.write_text(text)
    return lock


def wheel(directory: Path, name: str, version: str, files: Files) -> str:
    return build_wheel(directory, name, version, files=files)


def compiled_in(env: Path) -> set[Path]:
    return {path for path in site_packages(env).rglob("*.pyc") if ".envsync" not in path.parts}


def modules_in(env: Path) -> set[Path]:
    return {path for path in site_packages(env).rglob("*.py") if ".envsync" not in path.parts}


def bytecode_of(module: Path) -> Path:
    return Path(importlib.util.cache_from_source(str(module)))


def is_valid(module: Path) -> bool:
    """Ask importlib whether it would run the bytecode of a module as it is."""
    try:
        data, status = bytecode_of(module).read_bytes(), module.stat()
        assert _classify_pyc(data, module.name, {}) == 0
        _validate_timestamp_pyc(data, int(status.st_mtime), status.st_size, module.name, {})
    except (OSError, ImportError, EOFError):
        return False
    return True


def is_complete(env: Path) -> bool:
    """Tell whether every module has valid bytecode, and no bytecode is without its module."""
    modules = modules_in(env)
    return all(map(is_valid, modules)) and compiled_in(env) == set(map(bytecode_of, modules))


@pytest.mark.parametrize("mode", ["auto", "copy"])
def test_every_module_has_valid_bytecode(run_envsync: Run, cache: Path, tmp_path: Path, mode: str) -> None:
    """However it is linked; RECORD is the wheel's own and does not list it; a check finds nothing wrong."""
    sync(run_envsync, LOCK, "--link-mode", mode)
    env = tmp_path / "env"
    assert len(modules_in(env)) >= 5
    assert is_complete(env)
    assert unverified(env) == []
    assert all(".pyc" not in record.read_text() for record in site_packages(env).glob("*.dist-info/RECORD"))
    found, said = check(run_envsync)
    assert (found, said["sound"]) == (set(), True)


def test_a_second_environment_gets_links(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """What is in the cache is linked, the very files; nothing is compiled again."""
    sync(run_envsync, LOCK)
    sync(run_envsync, LOCK, env="second")
    for path in compiled_in(tmp_path / "env"):
        assert path.samefile(tmp_path / "second" / path.relative_to(tmp_path / "env"))
    assert is_complete(tmp_path / "second")


def test_python_runs_it(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """An import takes the bytecode as it is and writes nothing; a traceback names the environment's own file."""
    broken = wheel(tmp_path, "demo", "1.0", {"demo/__init__.py": "def f():\n    raise ValueError\n"})
    sync(run_envsync, lock_of(tmp_path, "a", broken))
    env = tmp_path / "env"
    before = {path: path.stat().st_ino for path in compiled_in(env)}
    done = run_envsync(
        "run",
        "--lock",
        "pylock.a.toml",
        "--env",
        "env",
        "--compile-bytecode",
        "--",
        "python",
        "-v",
        "-c",
        "import demo; demo.f()",
    )
    assert f"# code object from '{site_packages(env)}/demo/__pycache__/__init__" in done.stderr
    assert f'File "{site_packages(env)}/demo/__init__.py", line 2, in f' in done.stderr
    assert {path: path.stat().st_ino for path in compiled_in(env)} == before


def test_it_is_an_option_of_the_request(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """It is in the digest. What lacks bytecode is installed anew with it; without it, what is there is left alone."""
    plain = sync(run_envsync, LOCK, compiled=False)
    env = tmp_path / "env"
    assert compiled_in(env) == set()
    compiled = sync(run_envsync, LOCK)
    assert compiled["digest"] != plain["digest"]
    assert len(list(compiled["installed"])) == 5  # type: ignore[call-overload]
    assert is_complete(env)
    assert sync(run_envsync, LOCK)["outcome"] == "current"
    again = sync(run_envsync, LOCK, compiled=False)
    assert (again["outcome"], again["installed"], again["removed"]) == ("current", [], [])
    assert is_complete(env)
    assert sync(run_envsync, LOCK)["installed"] == []
    assert leftovers(env) == []


@pytest.mark.parametrize("where", ["variable", "table"])
def test_it_can_be_set_elsewhere(
    run_envsync: Run, cache: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every option."""
    shutil.copytree(FIXTURES, tmp_path / "project", ignore=shutil.ignore_patterns("*.next.toml"))
    if where == "variable":
        monkeypatch.setenv("ENVSYNC_COMPILE_BYTECODE", "1")
    else:
        (tmp_path / "project/pyproject.toml").write_text("[tool.envsync]\ncompile-bytecode = true\n")
    sync(run_envsync, tmp_path / "project/pylock.toml", compiled=False)
    assert is_complete(tmp_path / "env")


def test_it_goes_with_its_distribution(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """After an upgrade and a removal there is the new bytecode, and none of the old; also that of another Python."""
    sync(run_envsync, LOCK)
    env = tmp_path / "env"
    for path in compiled_in(env):
        shutil.copy(path, path.with_name(path.name.replace("cpython-", "cpython-9")))
    done = sync(run_envsync, NEXT)
    assert done["removed"] == ["almanac-words==1.0", "greet==1.0"]
    theirs = {path for path in compiled_in(env) if "cpython-9" in path.name}
    assert theirs
    for path in theirs:
        assert (path.parents[1] / f"{path.name.partition('.')[0]}.py").exists()
        path.unlink()
    assert is_complete(env)
    found, _ = check(run_envsync)
    assert found == set()
    assert run_envsync("run", "--lock", NEXT, "--env", "env", "--compile-bytecode", "--", "greet").returncode == 0


def test_others_uninstall_it(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """RECORD need not list it: uv removes it with the sources that RECORD lists, as the specification wants it."""
    if shutil.which("uv") is None:
        pytest.skip("there is no uv here")
    sync(run_envsync, LOCK)
    env = tmp_path / "env"
    words = ["uv", "pip", "uninstall", "--python", str(env / "bin/python"), "greet", "shout"]
    subprocess.run([*words, "--cache-dir", str(tmp_path / "uv")], check=True, capture_output=True)
    names = {path.name.partition(".")[0] for path in compiled_in(env)}
    assert not (site_packages(env) / "greet").exists()
    assert "phrases" not in names
    assert (cache / "v1/bytecode").exists()
    sync(run_envsync, LOCK)
    assert is_complete(env)


@pytest.mark.parametrize("compiled", [True, False])
def test_stale_bytecode_never_runs(run_envsync: Run, cache: Path, tmp_path: Path, compiled: bool) -> None:
    """Not even if it has size and time of the module that comes, and nobody owns it: whoever brings X.py owns it."""
    path = wheel(tmp_path, "demo", "1.0", {"demo.py": "x = 'new'\n", "pkg/mod.py": "x = 'new'\n", "pkg/a.py": ""})
    lock = lock_of(tmp_path, "a", path)
    other = lock_of(tmp_path, "b", wheel(tmp_path, "other", "1.0", {"other.py": "", "pkg/b.py": ""}))
    sync(run_envsync, lock, env="first", compiled=False)
    sync(run_envsync, other, compiled=compiled)
    site = site_packages(tmp_path / "env")
    planted = []
    for name in ("demo.py", "pkg/mod.py"):
        status = (site_packages(tmp_path / "first") / name).stat()
        code = compile("x = 'stale'", name, "exec")
        header = struct.pack("<3I", 0, int(status.st_mtime), status.st_size)
        stale = bytecode_of(site / name)
        stale.parent.mkdir(exist_ok=True)
        stale.write_bytes(importlib.util.MAGIC_NUMBER + header + marshal.dumps(code))
        planted.append(stale)
    sync(run_envsync, lock, compiled=compiled)
    assert all(map(is_valid, map(bytecode_source, planted))) is compiled
    command = ["-c", "import demo, pkg.mod; print(demo.x, pkg.mod.x)"]
    done = subprocess.run([tmp_path / "env/bin/python", *command], capture_output=True, text=True, check=True)
    assert done.stdout == "new new\n"


def bytecode_source(path: Path) -> Path:
    return Path(importlib.util.source_from_cache(str(path)))


def test_versions_of_equal_size(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """Whichever way one goes between two versions whose modules differ in nothing but a letter, the right one runs."""
    locks = [
        lock_of(tmp_path, version[0], wheel(tmp_path, "demo", version, {"demo.py": f"x = {version!r}\n"}))
        for version in ("1.0", "2.0")
    ]
    for turn, compiled in enumerate((True, True, False, True, False, False)):
        sync(run_envsync, locks[turn % 2], compiled=compiled)
        words = [tmp_path / "env/bin/python", "-c", "import demo; print(demo.x)"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ("1.0", "2.0")[turn % 2]


def test_a_module_that_does_not_compile(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """It is no failure, and said to those who ask for more, from a warm cache as well; all others have theirs."""
    files = {"demo/__init__.py": "", "demo/old.py": "print 'hello'\n"}
    lock = lock_of(tmp_path, "a", wheel(tmp_path, "demo", "1.0", files))
    for env in ("env", "second"):
        done = run_envsync("sync", "--lock", lock, "--env", env, "--compile-bytecode", "-v")
        assert done.returncode == 0
        assert "demo==1.0 has `demo/old.py`, which does not compile: SyntaxError" in done.stderr
    assert is_valid(site_packages(tmp_path / "env") / "demo/__init__.py")
    assert "compile" not in run_envsync("sync", "--lock", lock, "--env", "third", "--compile-bytecode").stderr
    assert sync(run_envsync, lock)["outcome"] == "current"
    assert check(run_envsync)[0] == set()


def test_bytecode_that_is_missing_or_changed_is_damage(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """It is named with its distribution, and restored by installing that one anew; the rest is left alone."""
    sync(run_envsync, LOCK)
    site = site_packages(tmp_path / "env")
    bytecode_of(site / "shout.py").unlink()
    changed = bytecode_of(site / "greet/phrases.py")
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.unlink()
    changed.write_bytes(content)
    changed.with_name("nobodys.cpython-311.pyc").touch()
    found, _ = check(run_envsync)
    assert found == {
        ("missing", bytecode_of(site / "shout.py").name, "shout"),
        ("changed", changed.name, "greet"),
        ("unowned", "nobodys.cpython-311.pyc", ""),
    }
    _, said = check(run_envsync, "--repair")
    assert (said["sound"], said["repaired"]) == (True, ["greet==1.0", "shout==1.0"])
    assert all(map(is_valid, modules_in(tmp_path / "env")))
    assert sync(run_envsync, LOCK)["outcome"] == "current"


def test_the_caches_bytecode_is_damaged_too(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """Whoever wrote through a link has written to the cache: it is compiled again, for which no wheel is fetched."""
    sync(run_envsync, LOCK)
    path = bytecode_of(site_packages(tmp_path / "env") / "shout.py")
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    _, said = check(run_envsync, "--repair")
    assert (said["sound"], said["repaired"]) == (True, ["shout==1.0"])
    assert path.read_bytes() != bytes(content)
    assert is_complete(tmp_path / "env")


HUNGRY = "x = [" + "f(1)," * 300_000 + "]\n"
"""Compiling it takes some 500 MB."""


def test_what_needs_too_much_memory_is_tried_again(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """That source goes without bytecode, and all is current; the next sync that compiles has it. Neither is damage."""

    def be_poor() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (350 << 20, 350 << 20))

    lock = lock_of(tmp_path, "hungry", wheel(tmp_path, "hungry", "1.0", {"hungry.py": HUNGRY, "modest.py": "y = 2\n"}))
    words = ("sync", "--lock", str(lock), "--compile-bytecode", "-v")
    poor = run_envsync(*words, "--env", "env", preexec_fn=be_poor)
    assert poor.returncode == 0, poor.stderr
    said = [line for line in poor.stderr.splitlines() if "hungry.py" in line]
    assert len(said) == 1
    assert "has no bytecode until it is compiled again: there was not enough memory" in said[0]
    env, rich = tmp_path / "env", tmp_path / "rich"
    assert [is_valid(site_packages(env) / name) for name in ("hungry.py", "modest.py")] == [False, True]
    assert sync(run_envsync, lock)["outcome"] == "current"
    done = run_envsync(*words, "--env", "rich")
    assert (done.returncode, "hungry.py" in done.stderr) == (0, False), done.stderr
    assert is_complete(rich)
    assert sync(run_envsync, lock)["outcome"] == "current"
    assert check(run_envsync)[0] == set()
    compile_it = f"import py_compile; py_compile.compile({str(site_packages(env) / 'hungry.py')!r})"
    subprocess.run([str(env / "bin" / "python"), "-c", compile_it], check=True)
    assert check(run_envsync)[0] == set()


def test_damaged_bytecode_is_not_linked(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """Its size and time are compared; it is compiled again, and the wheel stays where it is."""
    sync(run_envsync, LOCK)
    path = bytecode_of(site_packages(tmp_path / "env") / "shout.py")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes())
    done = run_envsync("sync", "--lock", LOCK, "--env", "second", "--compile-bytecode", "--offline")
    assert "set aside and compiled again" in done.stderr
    assert is_complete(tmp_path / "second")
    assert not path.samefile(tmp_path / "second" / path.relative_to(tmp_path / "env"))


def test_a_touched_source_is_python_s_own(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """Then Python compiles it anew, and that is no damage."""
    sync(run_envsync, LOCK)
    site = site_packages(tmp_path / "env")
    module = site / "shout.py"
    content, before = module.read_bytes(), module.stat().st_mtime
    module.unlink()
    module.write_bytes(content)
    os.utime(module, (before + 10, before + 10))  # this is all done within the second of the cache's files
    assert not is_valid(module)
    subprocess.run([tmp_path / "env/bin/python", "-c", "import shout"], check=True)
    assert is_valid(module)
    assert check(run_envsync)[0] == set()


def test_a_shared_module_has_the_bytecode_of_its_provider(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """A namespace's `__init__.py` that several have is one file, of one of them, and so is its bytecode, for ever."""
    wheels = [
        wheel(tmp_path, name, "1.0", {"space/__init__.py": "", f"space/{name}.py": "x = 1\n"})
        for name in ("a", "b", "c")
    ]
    for number, some in enumerate((wheels, wheels[:2], wheels[:1], wheels[::2])):
        sync(run_envsync, lock_of(tmp_path, str(number), *some))
        assert is_complete(tmp_path / "env")
        assert check(run_envsync)[0] == set()


def test_a_leader_killed_while_its_children_compile(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """They end by themselves, and with them the hold on the environment; the next sync does it all."""
    files = {f"demo/m{number}.py": "x = [1, {2: 3}]\n" * 3000 for number in range(60)}
    lock = lock_of(tmp_path, "a", wheel(tmp_path, "demo", "1.0", files))
    words = [*envsync_command(), "sync", "--lock", str(lock), "--env", "env", "--compile-bytecode"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as leader:
        children = Path(f"/proc/{leader.pid}/task/{leader.pid}/children")
        deadline = time.monotonic() + 50
        while not (pids := [pid for pid in children.read_text().split() if "compile_child" in command_of(pid)]):
            assert time.monotonic() < deadline
            assert leader.poll() is None
            time.sleep(0.005)
        leader.kill()
    while any("compile_child" in command_of(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert not (cache / "v1/bytecode").exists()
    assert sync(run_envsync, lock)["outcome"] == "synced"
    assert is_complete(tmp_path / "env")
    assert leftovers(tmp_path / "env") == []


def command_of(pid: str) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_cache_that_cannot_be_written(run_envsync: Run, cache: Path, tmp_path: Path) -> None:
    """What is there is linked or copied; what is not is compiled for the environment alone, which is said."""
    read_only = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", read_only, "sh", str(cache)]
    cache.mkdir()
    if not shutil.which("unshare") or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    first = lock_of(tmp_path, "a", wheel(tmp_path, "one", "1.0", {"one.py": "x = 1\n"}))
    two = wheel(tmp_path, "two", "1.0", {"two.py": "x = 2\n"})
    both = lock_of(tmp_path, "b", str(tmp_path / "one-1.0-py3-none-any.whl"), two)
    sync(run_envsync, first, env="first")
    sync(run_envsync, both, env="second", compiled=False)

    def confined() -> subprocess.CompletedProcess[str]:
        line = [*envsync_command(), "sync", "--lock", both, "--env", "env", "--compile-bytecode"]
        return subprocess.run([*words, *map(str, line)], capture_output=True, text=True, check=False, cwd=tmp_path)

    done = confined()
    assert done.returncode == 0, done.stderr
    assert "cannot be written to: what it lacked was fetched for this environment alone" in done.stderr
    site = site_packages(tmp_path / "env")
    assert is_valid(site / "one.py")
    assert is_valid(site / "two.py")
    assert "is current" in confined().stderr
    assert check(run_envsync)[0] == set()
    (tmp_path / "env/.envsync/stamp").unlink()
    assert sync(run_envsync, both)["installed"] == []
    assert is_complete(tmp_path / "env")
