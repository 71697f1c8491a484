"""Bytecode in the store: compiled by the target itself, once, whole or not at all, and valid by its own check."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from importlib._bootstrap_external import (  # type: ignore[import-not-found]
    _classify_pyc,
    _validate_timestamp_pyc,
)
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import FilesystemError, InterpreterError, SyncCancelledError
from envsync.fetching.compile_work import ChangedSourceError
from envsync.fetching.compiling import compile_wheels
from envsync.launch.progress import quiet
from envsync.locks import flock
from envsync.python import interpreter as interpreters
from envsync.python.facts import Interpreter
from envsync.store import bytecode
from envsync.store.bytecode import Shelf, source_of
from envsync.store.damage import damaged_files
from envsync.store.store import Store
from envsync.wheel.manifest import Manifest
from tests import needs
from tests.wheels import artifact, build_wheel

PACKAGE = {
    "demo/__init__.py": "x = 1\n",
    "demo/deep/er/mod.py": "def f():\n    raise ValueError(1)\n",
    "demo/data.txt": "no module\n",
    "demo/na\u00efve.py": "\u00fcber = '\u2603'\n",
    "single.py": "y = 2\n",
    "with,comma.py": "",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "cache"))
    made.prepare()
    return made


@pytest.fixture
def target(tmp_path: Path) -> Interpreter:
    return interpreters.inspect(sys.executable, str(tmp_path / "facts"))


def add(store: Store, name: str = "demo", files: dict[str, str | bytes] | None = None, **options: Any) -> Manifest:
    """Add a wheel to the store."""
    wheel = build_wheel(os.path.dirname(store.root), name, files=PACKAGE if files is None else files, **options)
    return store.add(wheel, artifact(wheel))


def compile_all(store: Store, target: Interpreter, *manifests: Manifest, **options: Any) -> bytecode.Compiled:
    """Compile wheels; return the first one's bytecode."""
    found = compile_wheels(manifests, target, store, **{"report": quiet, **options})
    return found[manifests[0].sha256]


def other(tmp_path: Path, target: Interpreter, before: str) -> Interpreter:
    """Return an interpreter that does something before it does what it is asked to."""
    path = tmp_path / f"python-{len(list(tmp_path.iterdir()))}"
    path.write_text(
        f"#!{sys.executable} -I\nimport os, runpy, signal, sys\nfrom importlib.machinery import SourceFileLoader\n"
        f"{before}\nsys.argv = sys.argv[-1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    path.chmod(0o755)
    return target._replace(executable=str(path))


def untidy(store: Store) -> list[str]:
    """Name what is in tmp and what is in the place of bytecode."""
    found = os.listdir(store.tmp)
    return [*found, *(os.listdir(f"{store.root}/v1/bytecode") if os.path.exists(f"{store.root}/v1/bytecode") else [])]


def test_every_module_has_bytecode_that_is_valid_by_pythons_own_check(store: Store, target: Interpreter) -> None:
    """Whatever its name and directory; nothing else has any; all of it read-only, as old as the wheel's files."""
    manifest = add(store)
    compiled = compile_all(store, target, manifest)
    root = Path(Shelf(store, target.bytecode).path(manifest.sha256))
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} - {"manifest.json"}
    assert found == {f"{scheme}/{path}/{file[0]}" for scheme, path, files in compiled.directories for file in files}
    sources = {source_of(path, target.bytecode) for path in found}
    assert sources == {f"purelib/{name}" for name in PACKAGE if name.endswith(".py")}
    for path in found:
        source = Path(store.path(manifest.sha256), source_of(path, target.bytecode))
        assert os.path.basename(importlib.util.cache_from_source(str(source))) == os.path.basename(path)
        data, status = (root / path).read_bytes(), source.stat()
        assert _classify_pyc(data, path, {}) == 0
        _validate_timestamp_pyc(data, int(status.st_mtime), status.st_size, path, {})
        assert (root / path).stat().st_mtime == manifest.mtime
        assert not (root / path).stat().st_mode & 0o222
    assert compiled.failures == ()
    assert list(damaged_files(str(root), compiled)) == []
    assert os.listdir(store.tmp) == []


def test_tracebacks_name_the_file_that_was_imported(store: Store, target: Interpreter, tmp_path: Path) -> None:
    """The final path is not known when it is compiled; CPython puts it in when it is loaded. No other path shows."""
    manifest = add(store)
    compile_all(store, target, manifest)
    site = tmp_path / "site"
    shutil.copytree(f"{store.path(manifest.sha256)}/purelib", site)
    shutil.copytree(f"{Shelf(store, target.bytecode).path(manifest.sha256)}/purelib", site, dirs_exist_ok=True)
    for directory in [site, *(path for path in site.rglob("*") if path.is_dir())]:
        directory.chmod(0o755)
    command = f"import sys; sys.path.insert(0, {str(site)!r}); import demo.deep.er.mod as m; m.f()"
    done = subprocess.run([sys.executable, "-I", "-v", "-c", command], capture_output=True, text=True, check=False)
    assert "matches" in next(line for line in done.stderr.splitlines() if "mod.cpython" in line)
    assert f'File "{site}/demo/deep/er/mod.py", line 2, in f' in done.stderr
    assert store.root not in done.stderr


def test_it_is_done_once(store: Store, target: Interpreter) -> None:
    """A second time, the interpreter is not even run."""
    manifest = add(store)
    first = compile_all(store, target, manifest)
    assert compile_all(store, target._replace(executable="/nonexistent"), manifest) == first


def test_what_does_not_compile_is_no_failure(store: Store, target: Interpreter) -> None:
    """It is noted, with the compiler's words and nothing that a terminal would act on; the others are compiled."""
    bad: dict[str, str | bytes] = {
        "python2.py": "print 'hello'\n",
        "null.py": b"x = '\0'\n",
        "latin.py": b"x = '\xe4'\n",
        "unknown.py": "# coding: no-such-codec\n",
        "nested.py": "(" * 500 + ")" * 500,
        "wild.py": "x = '\x1b[2J\n",
        "tabs.py": "if 1:\n        x = 1\n\ty = 1\n",
    }
    manifest = add(store, files={**bad, "good.py": "x = 1\n", "old.py": "x = '\\d'\nassert (x, 'always')\n"})
    compiled = compile_all(store, target, manifest)
    assert {path for path, _ in compiled.failures} == set(bad)
    assert "SyntaxError" in dict(compiled.failures)["python2.py"]
    assert all(problem.isprintable() for _, problem in compiled.failures)
    assert {
        source_of(f"{path}/{file[0]}", compiled.tag) for _, path, files in compiled.directories for file in files
    } == {
        "good.py",
        "old.py",
    }
    assert Shelf(store, target.bytecode).get(manifest.sha256) == compiled


def test_a_wheel_without_modules_needs_nothing(store: Store, target: Interpreter) -> None:
    """No directory is made for it, and no Python is run."""
    manifest = add(store, files={"demo/data.txt": "x"})
    assert compile_wheels([manifest], target._replace(executable="/nonexistent"), store, report=quiet) == {}
    assert untidy(store) == []


@pytest.mark.parametrize("how", ["another content of the same size and time", "gone"])
def test_a_source_that_was_changed_is_not_compiled(store: Store, target: Interpreter, how: str) -> None:
    """Its hash is compared: its bytecode would go on to run after the entry is mended."""
    manifest = add(store)
    source = Path(store.path(manifest.sha256), "purelib/single.py")
    source.unlink()
    if how != "gone":
        source.write_text("y = 3\n")
        os.utime(source, (manifest.mtime, manifest.mtime))
    with pytest.raises(ChangedSourceError, match=r"single\.py"):
        compile_all(store, target, manifest)
    assert untidy(store) == []


def others() -> list[str]:
    """Find other Pythons: on PATH, and installed beside ours."""
    names = [f"python3.{minor}" for minor in range(9, 16) if minor != sys.version_info[1]]
    beside = (path for name in names for path in Path(sys.base_prefix).parent.glob(f"*/bin/{name}"))
    candidates = [*(shutil.which(name) for name in names), *map(str, beside)]
    return sorted({os.path.realpath(path) for path in candidates if path and runs(path)})


def runs(path: str) -> bool:
    return subprocess.run([path, "-c", "0"], capture_output=True, check=False).returncode == 0


def test_another_python_has_its_own(store: Store, target: Interpreter, tmp_path: Path) -> None:
    """By cache tag and magic number, each in a directory of its own, valid there; ours stays as it is."""
    found = [interpreters.inspect(path, str(tmp_path / "facts")) for path in others()]
    theirs = {python.bytecode: python for python in found if python.bytecode not in ("", target.bytecode)}
    if not theirs:
        pytest.skip("there is no other Python here")
    manifest = add(store)
    compile_all(store, target, manifest)
    for tag, python in theirs.items():
        assert compile_all(store, python, manifest).tag == tag
        root = Shelf(store, tag).path(manifest.sha256)
        cache, source = f"{root}/purelib/__pycache__", f"{store.path(manifest.sha256)}/purelib/single.py"
        assert Path(cache, f"single.{python.cache_tag}.pyc").read_bytes().startswith(bytes.fromhex(python.magic))
        load = (
            "import importlib._bootstrap_external as b, os, sys; d = open(sys.argv[2], 'rb').read(); "
            "s = os.stat(sys.argv[1]); assert b._classify_pyc(d, 'x', {}) == 0; "
            "b._validate_timestamp_pyc(d, int(s.st_mtime), s.st_size, 'x', {})"
        )
        compiled = f"{cache}/single.{python.cache_tag}.pyc"
        subprocess.run([python.executable, "-I", "-c", load, source, compiled], check=True)
    assert {target.bytecode, *theirs} == set(os.listdir(f"{store.root}/v1/bytecode/{manifest.sha256}"))


def test_a_python_that_is_not_what_it_was_is_refused(store: Store, target: Interpreter) -> None:
    """What it makes would be found under the name of another, and never be valid."""
    with pytest.raises(InterpreterError, match="another Python"):
        compile_all(store, target._replace(magic="00000000"), add(store))
    assert untidy(store) == []


@pytest.mark.parametrize("executable", ["/bin/false", "/nonexistent"])
def test_a_python_that_does_not_run_is_an_error(store: Store, target: Interpreter, executable: str) -> None:
    """It is said, and not tried for ever."""
    with pytest.raises(InterpreterError):
        compile_all(store, target._replace(executable=executable), add(store))
    assert untidy(store) == []


COUNTING = """
compile_uncounted = SourceFileLoader.source_to_code
def compile_and_count(self, data, path):
    with open({count!r}, 'a') as file:
        file.write(path + chr(10))
    return compile_uncounted(self, data, path)
SourceFileLoader.source_to_code = compile_and_count
"""
DYING = """
compile = SourceFileLoader.source_to_code
def compile_or_die(self, data, path):
    if b"deadly" in data:
        {when}
        os.kill(os.getpid(), signal.SIGKILL)
    return compile(self, data, path)
SourceFileLoader.source_to_code = compile_or_die
"""


@pytest.mark.parametrize("children", [1, 3])
def test_a_file_that_kills_the_compiler_goes_without(
    store: Store, target: Interpreter, tmp_path: Path, children: int
) -> None:
    """All others are compiled, those before and those after it."""
    files: dict[str, str | bytes] = {f"m{number:02}.py": "x = 1\n" for number in range(40)}
    files |= {f"m{number}.py": "x = 'deadly'\n" for number in (10, 11, 39)}
    manifest = add(store, files=files)
    compiled = compile_all(store, other(tmp_path, target, DYING.format(when="pass")), manifest, children=children)
    assert [path for _, path, _ in compiled.died] == ["m10.py", "m11.py", "m39.py"]
    assert "exit status -9" in compiled.died[0][2]
    assert compiled.failures == ()
    assert sum(len(directory.files) for directory in compiled.directories) == 37


class TestTriedAgain:
    """What killed the compiler is tried again by the next sync that compiles, and nothing else is."""

    FILES: Mapping[str, str | bytes] = {
        "pkg/a.py": "x = 1\n",
        "pkg/b.py": "x = 'deadly'\n",
        "pkg/c.py": "x = 'deadly, too'\n",
        "pkg/python2.py": "print 1\n",
    }
    A_B_C = ("purelib/pkg/a.py", "purelib/pkg/b.py", "purelib/pkg/c.py")

    @pytest.fixture
    def manifest(self, store: Store, target: Interpreter, tmp_path: Path) -> Manifest:
        """Of a wheel that was compiled but for two sources."""
        manifest = add(store, files=dict(self.FILES))
        compiled = compile_all(store, other(tmp_path, target, DYING.format(when="pass")), manifest)
        assert [path for _, path, _ in compiled.died] == ["pkg/b.py", "pkg/c.py"]
        assert self.there(store, target, manifest) == {"purelib/pkg/a.py"}
        return manifest

    def there(self, store: Store, target: Interpreter, manifest: Manifest) -> set[str]:
        """Name the sources that have bytecode, in tmp nothing, and the manifest agreeing."""
        shelf = Shelf(store, target.bytecode)
        root, compiled = Path(shelf.path(manifest.sha256)), shelf.get(manifest.sha256)
        assert compiled is not None
        assert list(damaged_files(str(root), compiled)) == []
        assert os.listdir(store.tmp) == []
        found = {source_of(path.relative_to(root).as_posix(), shelf.tag) for path in root.rglob("*.pyc")}
        files = (f"{scheme}/{path}/{file[0]}" for scheme, path, files in compiled.directories for file in files)
        assert found == {source_of(path, shelf.tag) for path in files}
        return found

    def test_and_succeeds(self, store: Store, target: Interpreter, manifest: Manifest, tmp_path: Path) -> None:
        """What was there is taken over as it is; what came late is said; then there is nothing to do any more."""
        shelf = Shelf(store, target.bytecode)
        place = shelf.path(manifest.sha256)
        (before,) = Path(place).rglob("a.*.pyc")
        content = before.read_bytes()
        counting = tmp_path / "counting"
        python = other(tmp_path, target, COUNTING.format(count=str(counting)))
        compiled = compile_all(store, python, manifest)
        assert counting.read_text().split() == ["pkg/b.py", "pkg/c.py"]
        assert (compiled.died, compiled.late) == ((), ("pkg/b.py", "pkg/c.py"))
        assert [path for path, _ in compiled.failures] == ["pkg/python2.py"]
        assert self.there(store, target, manifest) == set(self.A_B_C)
        assert before.read_bytes() == content
        assert before.stat().st_mtime == manifest.mtime
        assert compile_all(store, python, manifest) == compiled == shelf.get(manifest.sha256)
        assert len(counting.read_text().split()) == 2

    def test_and_fails_again(self, store: Store, target: Interpreter, manifest: Manifest, tmp_path: Path) -> None:
        """Then what is there stays in place."""
        shelf = Shelf(store, target.bytecode)
        inode, before = os.stat(shelf.path(manifest.sha256)).st_ino, shelf.get(manifest.sha256)
        assert compile_all(store, other(tmp_path, target, DYING.format(when="pass")), manifest) == before
        assert os.stat(shelf.path(manifest.sha256)).st_ino == inode
        assert self.there(store, target, manifest) == {"purelib/pkg/a.py"}

    def test_and_succeeds_in_part(self, store: Store, target: Interpreter, manifest: Manifest, tmp_path: Path) -> None:
        """What was gained is kept, and the rest is tried once more."""
        dying = DYING.format(when="pass").replace('b"deadly"', 'b"too"')
        compiled = compile_all(store, other(tmp_path, target, dying), manifest)
        assert ([path for _, path, _ in compiled.died], compiled.late) == (["pkg/c.py"], ("pkg/b.py",))
        assert self.there(store, target, manifest) == set(self.A_B_C[:2])
        assert compile_all(store, target, manifest).late == ("pkg/b.py", "pkg/c.py")
        assert self.there(store, target, manifest) == set(self.A_B_C)

    def test_and_what_was_there_is_damaged(self, store: Store, target: Interpreter, manifest: Manifest) -> None:
        """Then it is not taken over: everything is compiled anew."""
        (path,) = Path(Shelf(store, target.bytecode).path(manifest.sha256)).rglob("a.*.pyc")
        path.unlink()
        assert compile_all(store, target, manifest).late == ("pkg/b.py", "pkg/c.py")
        assert self.there(store, target, manifest) == set(self.A_B_C)

    def test_but_not_at_once_by_who_waited(
        self, store: Store, target: Interpreter, manifest: Manifest, tmp_path: Path
    ) -> None:
        """Of many that start together, one tries."""
        counting = tmp_path / "counting"
        python = other(tmp_path, target, COUNTING.format(count=str(counting)) + DYING.format(when="pass"))
        lock = flock.acquire_nowait(f"{store.locks}/bytecode-{int(manifest.sha256[:8], 16) % 64}", shared=False)
        assert lock is not None

        def tell(phase: str, *_: int) -> None:
            if phase.startswith("waiting"):
                lock.release()

        assert compile_all(store, python, manifest, report=tell).died
        assert not counting.exists()

    def test_beside_a_store_that_cannot_be_written(
        self, store: Store, target: Interpreter, manifest: Manifest, tmp_path: Path
    ) -> None:
        """What it lacks goes elsewhere, with all the rest, and is used from there."""
        upper = Store(f"{tmp_path}/upper")
        upper.below = store.root
        compiled = compile_all(upper, target, manifest)
        assert compiled.late == ("pkg/b.py", "pkg/c.py")
        assert Shelf(upper, target.bytecode).path(manifest.sha256).startswith(upper.root)
        assert self.there(upper, target, manifest) == set(self.A_B_C)
        assert self.there(store, target, manifest) == {"purelib/pkg/a.py"}


def test_a_child_that_is_killed_once_costs_nothing(store: Store, target: Interpreter, tmp_path: Path) -> None:
    """Its file is compiled by the next one: it was the kernel, say, for want of memory."""
    mark = tmp_path / "mark"
    once = f"if os.path.exists({str(mark)!r}): return compile(self, data, path)\n        open({str(mark)!r}, 'w')"
    manifest = add(store, files={"a.py": "x = 1\n", "b.py": "x = 'deadly'\n", "c.py": "x = 1\n"})
    compiled = compile_all(store, other(tmp_path, target, DYING.format(when=once)), manifest)
    assert mark.exists()
    assert (compiled.failures, compiled.died) == ((), ())


@needs.PROC
def test_children_hold_the_environment_lock_and_nothing_else(store: Store, target: Interpreter, tmp_path: Path) -> None:
    """Least of all the in-use lock, which is inheritable while a command is launched."""
    said = tmp_path / "descriptors"
    python = other(
        tmp_path,
        target,
        f"open({str(said)!r}, 'w').write('\\n'.join(os.readlink(f'/proc/self/fd/{{n}}')"
        " for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')))",
    )
    lock = flock.acquire_nowait(str(tmp_path / "environment"), shared=False)
    in_use = flock.acquire_nowait(str(tmp_path / "in-use"), shared=True)
    assert lock is not None
    assert in_use is not None
    os.set_inheritable(in_use.fd, True)
    compile_all(store, python, add(store), inherited=(lock.fd,))
    held = {path for path in said.read_text().split("\n") if path.startswith(str(tmp_path))}
    assert held <= {str(tmp_path / "environment"), str(said), python.executable}
    assert str(tmp_path / "environment") in held
    in_use.release()
    lock.release()


def test_it_can_be_cancelled(store: Store, target: Interpreter, tmp_path: Path) -> None:
    """Whatever the report raises ends it; the children are gone, and nothing is left in the cache."""
    pids = tmp_path / "pids"
    python = other(tmp_path, target, f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')")

    def cancel(phase: str, done: int, total: int, *_: int) -> None:
        if done >= 20:
            raise SyncCancelledError("enough")

    files: dict[str, str | bytes] = {f"m{number}.py": "x = 1\n" for number in range(600)}
    with pytest.raises(SyncCancelledError):
        compile_all(store, python, add(store, files=files), report=cancel)
    assert untidy(store) == []
    for pid in pids.read_text().split():
        assert not os.path.exists(f"/proc/{pid}")


def test_an_error_of_the_disk_is_one(store: Store, target: Interpreter, tmp_path: Path) -> None:
    """The path is named, and nothing is left: half of a wheel's bytecode is none."""
    full = "import errno\nreal = os.utime\ndef utime(*_):\n    raise OSError(errno.ENOSPC, 'full')\nos.utime = utime"
    with pytest.raises(FilesystemError, match="No space left on device"):
        compile_all(store, other(tmp_path, target, full), add(store))
    assert untidy(store) == []


@needs.PROC
def test_what_another_process_compiles_is_waited_for(store: Store, target: Interpreter) -> None:
    """It is said for whom, while all that nobody else does is done; then what the other has made is used."""
    first = add(store)
    theirs = Store(shutil.copytree(store.root, f"{store.root}-theirs"))
    compiled = compile_all(theirs, target, first)
    second = add(store, "second", {"second.py": "x = 1\n"})
    shelf = Shelf(store, target.bytecode)
    lock = flock.acquire_nowait(f"{store.locks}/bytecode-{int(first.sha256[:8], 16) % 64}", shared=False)
    assert lock is not None
    phases = []

    def tell(phase: str, done: int, *_: int) -> None:
        phases.append(phase)
        if phase.startswith("waiting"):
            assert shelf.get(second.sha256) is not None
            os.makedirs(os.path.dirname(shelf.path(first.sha256)))
            os.rename(Shelf(theirs, target.bytecode).path(first.sha256), shelf.path(first.sha256))
            lock.release()

    assert compile_all(store, target, first, second, report=tell) == compiled
    assert phases.count(f"waiting for pid {os.getpid()} to compile") == 1


def test_several_at_once_each_have_all_of_it(store: Store, target: Interpreter, tmp_path: Path) -> None:
    """And each wheel was compiled by one of them alone."""
    count = tmp_path / "count"
    counting = f"""
compile = SourceFileLoader.source_to_code
def compile_and_count(self, data, path):
    with open({str(count)!r}, 'a') as file:
        file.write('x')
    return compile(self, data, path)
SourceFileLoader.source_to_code = compile_and_count
"""
    python = other(tmp_path, target, counting)
    manifests = [add(store, f"demo{n}", {f"d{n}_{m}.py": f"x = {m}\n" for m in range(20)}) for n in range(6)]
    found: list[dict[str, bytecode.Compiled]] = []
    threads = [
        threading.Thread(target=lambda: found.append(compile_wheels(manifests, python, store, report=quiet)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.keys() for each in found] == [{manifest.sha256 for manifest in manifests}] * 3
    assert count.stat().st_size == 120
    assert os.listdir(store.tmp) == []


class TestShelf:
    """What is found, and what is as good as absent."""

    def test_damaged(self, store: Store, target: Interpreter) -> None:
        """A manifest that was cut is as none: it is compiled anew, and what was there goes."""
        manifest = add(store)
        compiled = compile_all(store, target, manifest)
        shelf = Shelf(store, target.bytecode)
        path = Path(shelf.path(manifest.sha256), "manifest.json")
        content = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(content[: len(content) // 2])
        assert shelf.get(manifest.sha256) is None
        assert compile_all(store, target, manifest) == compiled
        assert path.read_bytes() == content
        assert os.listdir(store.tmp) == []

    def test_the_first_one_wins(self, store: Store, target: Interpreter) -> None:
        """What is there is never replaced: environments have links to it."""
        manifest = add(store)
        compiled = compile_all(store, target, manifest)
        shelf = Shelf(store, target.bytecode)
        os.mkdir(f"{store.tmp}/mine")
        before = os.stat(shelf.path(manifest.sha256)).st_ino
        assert shelf.add(f"{store.tmp}/mine", compiled._replace(failures=(("x.py", "mine"),))) == compiled
        assert os.stat(shelf.path(manifest.sha256)).st_ino == before

    def test_discarding(self, store: Store, target: Interpreter) -> None:
        """It is gone, and nothing is left of it; a second time is no error."""
        manifest = add(store)
        compile_all(store, target, manifest)
        shelf = Shelf(store, target.bytecode)
        shelf.discard(manifest.sha256)
        shelf.discard(manifest.sha256)
        assert shelf.get(manifest.sha256) is None
        assert os.listdir(store.tmp) == []

    def test_a_flipped_bit(self, store: Store, target: Interpreter) -> None:
        """A bit that was flipped is found by the hash."""
        manifest = add(store)
        compiled = compile_all(store, target, manifest)
        root = Path(Shelf(store, target.bytecode).path(manifest.sha256))
        path = next(path for path in root.rglob("*.pyc"))
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        path.write_bytes(content)
        assert list(damaged_files(str(root), compiled)) == [path.relative_to(root).as_posix()]
