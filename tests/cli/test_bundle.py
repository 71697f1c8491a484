"""`envsync bundle`: what a person types and sees, and that a bundle is all that a node needs."""

from __future__ import annotations

import json
import marshal
import os
import random
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import tomli_w

from envsync.bundling.directory import Bundle
from envsync.bundling.verifying import verified
from tests.conftest import envsync_command
from tests.crash.harness import KILL, KILLS, Kind, strike
from tests.environments import FIXTURES, site_packages, unverified
from tests.projects import make_project
from tests.unit.fetching.server import File, serving
from tests.wheels import build_wheel, sha256_of

Run = Callable[..., CompletedProcess[str]]
LOCK, NEXT = str(FIXTURES / "pylock.toml"), str(FIXTURES / "pylock.next.toml")
VERSIONS = {"greet==1.0", "greet==2.0"}
UV = shutil.which("uv") or ""


@pytest.fixture
def bundle(tmp_path: Path, run_envsync: Run) -> Path:
    """A bundle of five wheels."""
    run_envsync("bundle", "--lock", LOCK, "--to", "bundle", check=True)
    return tmp_path / "bundle"


def wheels(bundle: Path) -> list[str]:
    return sorted(path.name for path in bundle.glob("wheels/*/*.whl"))


def tree(bundle: Path) -> dict[str, bytes]:
    """All files of a bundle but for what is being written."""
    paths = [path for path in bundle.rglob("*") if path.is_file() and ".tmp" not in path.parts]
    return {str(path.relative_to(bundle)): path.read_bytes() for path in paths}


@contextmanager
def out_of_reach(*paths: Path) -> Iterator[None]:
    """Move things away meanwhile."""
    for path in paths:
        path.rename(f"{path}.away")
    yield
    for path in paths:
        Path(f"{path}.away").rename(path)


class TestMake:
    """A bundle has everything, verified, and a lock file that any installer reads."""

    def test_a_node_needs_nothing_else(self, run_envsync: Run, tmp_path: Path) -> None:
        """No index, no network, no cache: the bundle can be moved, and is not written to."""
        shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
        shutil.copy(LOCK, tmp_path)
        run_envsync("bundle", "--to", "made", cwd=tmp_path, check=True)
        shutil.rmtree(tmp_path / "wheels")
        (tmp_path / "made").rename(tmp_path / "moved")
        before = tree(tmp_path / "moved")
        asked = ("--lock", "moved/pylock.toml", "--env", "env", "--cache-dir", "fresh", "--offline", "--no-index")
        done = run_envsync("run", *asked, "--", "python", "-c", "import greet, shout; print(greet.__file__)")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(tmp_path / "env"))
        assert unverified(tmp_path / "env") == []
        assert tree(tmp_path / "moved") == before
        assert not (tmp_path / "moved/.venv").exists()

    def test_what_is_said(self, run_envsync: Run, tmp_path: Path) -> None:
        """How much it will be, before; what became of it, after."""
        done = run_envsync("bundle", "--lock", LOCK, "--to", "bundle", check=True)
        assert "bundling 5 wheels, 8.3 kB, into" in done.stderr
        assert "has 5 wheels, 8.3 kB, 5 of them are new" in done.stdout
        told = json.loads(run_envsync("bundle", "--lock", LOCK, "--to", "bundle", "--json", check=True).stdout)
        assert (len(told["wheels"]), told["added"], told["changed"]) == (5, [], False)
        assert told["bundle"] == str(tmp_path / "bundle")
        assert sorted(map(os.path.basename, told["wheels"])) == wheels(tmp_path / "bundle")
        quiet = run_envsync("bundle", "--lock", LOCK, "--to", "bundle", "-q", check=True)
        assert (quiet.stdout, quiet.stderr) == ("", "")

    def test_dry_run(self, run_envsync: Run, tmp_path: Path) -> None:
        """It says what would be in it, and makes nothing."""
        done = run_envsync("bundle", "--lock", LOCK, "--to", "bundle", "--dry-run", check=True)
        assert done.stdout.count("would add ") == 5
        assert not (tmp_path / "bundle").exists()

    def test_an_update(self, run_envsync: Run, bundle: Path) -> None:
        """It adds wheels, and then replaces pylock.toml; what was there stays."""
        before = tree(bundle)
        done = run_envsync("bundle", "--lock", NEXT, "--to", str(bundle), "--json", check=True)
        assert json.loads(done.stdout)["changed"]
        after = tree(bundle)
        assert {path for path in before if after[path] != before[path]} == {"pylock.toml"}
        assert before["pylock.toml"] in {data for path, data in after.items() if path.startswith("versions/")}
        assert [path for path in after.keys() - before.keys() if path.startswith("wheels/")]

    def test_choices(self, run_envsync: Run, tmp_path: Path) -> None:
        """Extras and groups are those that were asked for; in the bundle there is nothing to choose any more."""
        text = Path(LOCK).read_text().replace("wheels/", f"{FIXTURES}/wheels/")
        text = text.replace("created-by", 'extras = ["loud"]\ncreated-by')
        text = text.replace('name = "shout"\n', 'name = "shout"\nmarker = "\'loud\' in extras"\n')
        (tmp_path / "pylock.toml").write_text(text)
        for asked, count in (((), 4), (("--extra", "loud"), 5)):
            to = tmp_path / f"bundle-{count}"
            run_envsync("bundle", "--to", str(to), *asked, check=True)
            assert len(wheels(to)) == count
            run_envsync("sync", "--lock", f"{to}/pylock.toml", "--env", f"env-{count}", check=True)
            assert (site_packages(tmp_path / f"env-{count}") / "shout.py").exists() == (count == 5)

    def test_what_is_built(self, run_envsync: Run, tmp_path: Path) -> None:
        """The project itself, a directory that it requires, and no link to either: nodes see neither."""
        log = tmp_path / "log"
        app = make_project(tmp_path / "app", "app", log=log)
        make_project(tmp_path / "lib", "lib", log=log, native=True)
        (app / "uv.lock").write_text(UV_LOCK)
        run_envsync("bundle", "--to", str(tmp_path / "bundle"), cwd=app, check=True)
        assert [name.partition("-")[0] for name in wheels(tmp_path / "bundle")] == ["app", "lib"]
        with out_of_reach(app, tmp_path / "lib"):
            asked = ("--lock", "bundle/pylock.toml", "--env", "env", "--cache-dir", "fresh", "--no-build", "--offline")
            done = run_envsync("run", *asked, "--", "python", "-c", "import app, lib; print(app.__file__)")
            assert done.returncode == 0, done.stderr
            assert str(tmp_path / "env") in done.stdout

    def test_without_a_hash(self, run_envsync: Run, tmp_path: Path) -> None:
        """What came is what it is from then on, which is said; nodes compare it."""
        (tmp_path / "requirements.txt").write_text(f"--no-index\n--find-links {FIXTURES}/wheels\ngreet==1.0\n")
        done = run_envsync("bundle", "--to", "bundle", check=True)
        assert "without a hash in the lock file, taken as they came: greet" in done.stderr
        lock = tomllib.loads((tmp_path / "bundle/pylock.toml").read_text())
        assert len(lock["packages"][0]["wheels"][0]["hashes"]["sha256"]) == 64

    def test_without_a_hash_nor_a_whole_record(self, run_envsync: Run, tmp_path: Path) -> None:
        """Nobody vouches for all of it: a bundle does not either."""
        wheel = build_wheel(tmp_path, "loose", "1.0", {"loose.py": ""}, record=lambda rows: rows[1:])
        (tmp_path / "requirements.txt").write_text(f"{wheel}\n")
        done = run_envsync("bundle", "--to", "bundle")
        assert done.returncode == 125
        assert "loose.py" in done.stderr
        assert not (tmp_path / "bundle/pylock.toml").exists()

    def test_from_a_server(self, run_envsync: Run, tmp_path: Path) -> None:
        """It is fetched, though the cache has it unpacked: a bundle has files. What is there is not fetched again."""
        wheel = Path(build_wheel(tmp_path, "greet", "1.0", {"greet.py": ""}))
        with serving() as server:
            server.files[f"/{wheel.name}"] = File(wheel.read_bytes())
            line = f"greet @ {server.url}/{wheel.name} --hash=sha256:{sha256_of(wheel)}\n"
            (tmp_path / "requirements.txt").write_text(line)
            run_envsync("sync", "--env", "env", check=True)
            done = run_envsync("bundle", "--to", "bundle", "--offline")
            assert done.returncode == 125
            assert "offline" in done.stderr
            run_envsync("bundle", "--to", "bundle", check=True)
            run_envsync("bundle", "--to", "bundle", "--offline", check=True)
            assert wheels(tmp_path / "bundle") == [wheel.name]
            server.files[f"/{wheel.name}"] = File(b"something else")
            before = tree(tmp_path / "bundle")
            (tmp_path / "requirements.txt").write_text(line.replace(sha256_of(wheel), "1" * 64))
            assert run_envsync("bundle", "--to", "bundle").returncode == 125
            assert tree(tmp_path / "bundle") == before

    def test_where_it_is_to_be(self, run_envsync: Run) -> None:
        """That has to be said."""
        done = run_envsync("bundle", "--lock", LOCK)
        assert done.returncode == 2
        assert "envsync bundle --lock" in done.stderr


UV_LOCK = """\
version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "app"
version = "1.0"
source = { editable = "." }
dependencies = [{ name = "lib" }]

[[package]]
name = "lib"
version = "1.0"
source = { directory = "../lib" }
"""


class TestTargets:
    """For several Pythons, and platforms that are not here."""

    def places(self, directory: Path) -> str:
        lines = []
        tags = ("cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-manylinux_2_17_x86_64", "cp312-cp312-win_amd64")
        found = [build_wheel(directory, "fast", "1.0", tag=tag) for tag in tags]
        lines = [f"fast==1.0 {' '.join(f'--hash=sha256:{sha256_of(path)}' for path in found)}"]
        pure = build_wheel(directory, "pure", "1.0")
        lines.append(f"pure==1.0 ; python_version < '3.12' --hash=sha256:{sha256_of(pure)}")
        return "\n".join([f"--no-index\n--find-links {directory}", *lines, ""])

    def test_several(self, run_envsync: Run, tmp_path: Path) -> None:
        """Each has its wheels; one that is none of them is refused."""
        (tmp_path / "requirements.txt").write_text(self.places(tmp_path))
        pythons = ("--python", "3.11", "--python", "3.12")
        done = run_envsync("bundle", "--to", "bundle", *pythons, "--platform", "manylinux_2_28_x86_64", "--json")
        assert done.returncode == 0, done.stderr
        assert [path.split("-", 2)[2] for path in wheels(tmp_path / "bundle")] == [
            "cp311-cp311-manylinux_2_17_x86_64.whl",
            "cp312-cp312-manylinux_2_17_x86_64.whl",
            "py3-none-any.whl",
        ]
        asked = ("--python", "3.12", "--platform", "win_amd64", "--json", "--to", "windows")
        told = json.loads(run_envsync("bundle", *asked, check=True).stdout)
        assert [os.path.basename(path) for path in told["wheels"]] == ["fast-1.0-cp312-cp312-win_amd64.whl"]
        done = run_envsync("sync", "--lock", "windows/pylock.toml", "--env", "env")
        assert done.returncode == 125
        assert "it was not made for" in done.stderr

    def test_what_is_to_be_built_for_elsewhere(self, run_envsync: Run, tmp_path: Path) -> None:
        """A tree may give a wheel for any platform; one for this host is of no use there."""
        own = ".".join(map(str, sys.version_info[:2]))
        asked = ("bundle", "--python", own, "--platform", "macosx_14_0_arm64", "--to", str(tmp_path / "bundle"))
        app = make_project(tmp_path / "app", "app")
        (app / "uv.lock").write_text(UV_LOCK.partition("dependencies")[0])
        run_envsync(*asked, cwd=app, check=True)
        assert [name.partition("-")[0] for name in wheels(tmp_path / "bundle")] == ["app"]
        native = make_project(tmp_path / "native", "app", native=True)
        (native / "uv.lock").write_text(UV_LOCK.partition("dependencies")[0])
        before = tree(tmp_path / "bundle")
        done = run_envsync(*asked, cwd=native)
        assert done.returncode == 125
        assert "its wheel is for this host" in done.stderr
        assert tree(tmp_path / "bundle") == before

    def test_what_is_no_platform(self, run_envsync: Run) -> None:
        """It is refused before anything is looked for."""
        done = run_envsync("bundle", "--lock", LOCK, "--to", "bundle", "--platform", "plan9_mips")
        assert done.returncode == 2
        assert "`plan9_mips` is not the name of a platform" in done.stderr


class TestUse:
    """The lock file of a bundle is like any other, but for the place of an environment."""

    @pytest.mark.parametrize("command", ["run", "sync", "check", "status"])
    def test_without_an_environment(self, run_envsync: Run, bundle: Path, command: str) -> None:
        """`.venv` beside it would lie in the bundle."""
        words = ("--", "python", "-V") if command == "run" else ()
        for cwd, asked in ((bundle.parent, ("--lock", "bundle/pylock.toml")), (bundle, ())):
            done = run_envsync(command, *asked, *words, cwd=cwd)
            assert done.returncode == (125 if command == "run" else 2)
            assert "is the lock file of a bundle, and no environment is named" in done.stderr
            assert "--env '/var/tmp/{user}/{digest}'" in done.stderr
        assert not (bundle / ".venv").exists()

    def test_said_elsewhere(self, run_envsync: Run, bundle: Path, tmp_path: Path) -> None:
        """By a variable, or in the user's file."""
        lock = ("--lock", "bundle/pylock.toml")
        run_envsync("run", *lock, "--", "python", "-c", "import greet", env={"ENVSYNC_ENV": "env"}, check=True)
        assert unverified(tmp_path / "env") == []

    def test_into_a_cache(self, run_envsync: Run, bundle: Path) -> None:
        """What needs no environment does not ask for one."""
        run_envsync("cache", "add", "--lock", "bundle/pylock.toml", "--cache-dir", "cache", check=True)
        again = run_envsync("bundle", "--lock", "bundle/pylock.toml", "--to", "again", check=True)
        assert "has 5 wheels" in again.stdout
        assert (bundle / "pylock.toml").read_bytes() == (bundle.parent / "again/pylock.toml").read_bytes()

    def test_a_place_of_its_own_does_not_matter(self, run_envsync: Run, bundle: Path) -> None:
        """The same bundle in two places has one digest: nodes may have copies of it."""
        shutil.copytree(bundle, bundle.parent / "copy")
        digests = set()
        for each in ("bundle", "copy"):
            done = run_envsync("sync", "--lock", f"{each}/pylock.toml", "--env", "envs/{digest}", "--json", check=True)
            digests.add(json.loads(done.stdout)["digest"])
        assert len(digests) == 1


COMPILED = ("--lock", "bundle/pylock.toml", "--env", "env", "--cache-dir", "node", "--compile-bytecode")


def edited(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the lock file of a bundle says of bytecode."""
    table = tomllib.loads((bundle / "pylock.toml").read_text())
    for file in table["tool"]["envsync"]["bundle"]["bytecode"]:
        change(file)
    (bundle / "pylock.toml").write_text(tomli_w.dumps(table))


def rewritten(bundle: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Change what is in the files of bytecode of a bundle, and have its lock file vouch for that."""
    for path in bundle.glob("bytecode/*/*.zip"):
        with zipfile.ZipFile(path) as archive:
            members = {name: change(name, archive.read(name)) for name in archive.namelist()}
        path.unlink()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    edited(
        bundle,
        lambda file: file.update(
            size=(bundle / file["path"]).stat().st_size, hashes={"sha256": sha256_of(bundle / file["path"])}
        ),
    )


def compiled_in(root: Path) -> dict[str, bytes]:
    """All bytecode in an environment, or in a cache, by path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.pyc") if path.is_file()}


class TestBytecode:
    """With `--compile-bytecode` a bundle has it, and nodes that want it compile nothing."""

    @pytest.fixture
    def bundle(self, tmp_path: Path, run_envsync: Run) -> Path:
        run_envsync("bundle", "--lock", LOCK, "--to", "bundle", "--compile-bytecode", check=True)
        return tmp_path / "bundle"

    def test_what_is_said(self, run_envsync: Run, tmp_path: Path) -> None:
        """How much there is besides the wheels, before and after; and again, that there is nothing new."""
        asked = ("bundle", "--lock", LOCK, "--to", "bundle", "--compile-bytecode")
        done = run_envsync(*asked, "--dry-run", check=True)
        assert "would add bytecode/" in done.stdout
        done = run_envsync(*asked, check=True)
        assert "bundling 5 wheels, 8.3 kB, and about 1.7 kB of bytecode, into" in done.stderr
        assert "has 5 wheels and 4 files of bytecode, " in done.stdout
        assert ", 9 of them are new, for" in done.stdout
        assert "nodes that sync with --compile-bytecode" in done.stdout
        before = tree(tmp_path / "bundle")
        done = run_envsync(*asked, "--cache-dir", "another", "--json", check=True)
        told = json.loads(done.stdout)
        assert (told["added"], told["changed"], len(told["bytecode"]), told["notes"]) == ([], False, 4, [])
        assert tree(tmp_path / "bundle") == before
        assert not list((tmp_path / "another").rglob("*.pyc"))
        assert "would have 5 wheels and 4 files of bytecode, 8.3 kB, none" in run_envsync(*asked, "--dry-run").stdout

    def test_the_same_anywhere(self, run_envsync: Run, bundle: Path) -> None:
        """Made again of nothing, with another cache: not a byte differs."""
        asked = ("--lock", LOCK, "--to", "again", "--cache-dir", "another", "--compile-bytecode")
        run_envsync("bundle", *asked, check=True)
        there = {path: data for path, data in tree(bundle.parent / "again").items() if path != ".lock"}
        assert there == {path: data for path, data in tree(bundle).items() if path != ".lock"}

    def test_a_node_compiles_nothing(self, run_envsync: Run, bundle: Path, tmp_path: Path) -> None:
        """It has what it would have compiled; a check finds nothing, RECORD says nothing, and Python writes nothing."""
        before = tree(bundle)
        run_envsync("sync", *COMPILED, check=True)
        taken = compiled_in(tmp_path / "env")
        assert len(taken) >= 5
        assert tree(bundle) == before
        assert unverified(tmp_path / "env") == []
        run_envsync("check", "--env", "env", "--cache-dir", "node", check=True)
        assert all(
            ".pyc" not in path.read_text() for path in site_packages(tmp_path / "env").glob("*.dist-info/RECORD")
        )
        show = "import greet.phrases, shout, traceback; print(greet.phrases.__cached__)"
        done = run_envsync("run", *COMPILED, "--", "python", "-v", "-c", show)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(tmp_path / "env"))
        assert f"code object from '{site_packages(tmp_path / 'env')}/greet/__pycache__" in done.stderr
        assert compiled_in(tmp_path / "env") == taken

    def test_it_is_what_is_in_the_file(self, run_envsync: Run, bundle: Path, tmp_path: Path) -> None:
        """So that somebody else's module runs, if the lock file vouches for it."""
        planted = marshal.dumps(compile("planted = 1", "shout.py", "exec"))
        rewritten(bundle, lambda name, data: data[:16] + planted if "shout" in name else data)
        done = run_envsync("run", *COMPILED, "--", "python", "-c", "import shout; print(shout.planted)")
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr

    def test_without_the_option(self, run_envsync: Run, bundle: Path, tmp_path: Path) -> None:
        """A node that does not want it reads none of it."""
        shutil.rmtree(bundle / "bytecode")
        run_envsync("sync", *COMPILED[:-1], check=True)
        assert compiled_in(tmp_path / "env") == compiled_in(tmp_path / "node") == {}

    @pytest.mark.parametrize(
        ("kind", "problem"),
        [
            ("missing", "No such file"),
            ("damaged", "sha256"),
            ("another Python's", "compiled for"),
            ("nonsense", ""),
            ("unnamed", ""),
        ],
    )
    def test_what_cannot_be_used(self, run_envsync: Run, bundle: Path, tmp_path: Path, kind: str, problem: str) -> None:
        """It is compiled, which is said once, with what shows more; the next sync has nothing to say."""
        files = sorted(bundle.glob("bytecode/*/*.zip"))
        if kind == "missing":
            shutil.rmtree(bundle / "bytecode")
        elif kind == "damaged":
            for path in files:
                path.chmod(0o600)
                path.write_bytes(b"#" * path.stat().st_size)
        elif kind == "another Python's":
            rewritten(bundle, lambda name, data: data.replace(b'"cpython-', b'"cpython-9') if "json" in name else data)
        elif kind == "nonsense":
            edited(bundle, lambda file: file.update(path="../../etc/passwd"))
        else:
            edited(bundle, lambda file: file.update(path=file["path"].replace("cpython", "pypy")))
        done = run_envsync("sync", *COMPILED, check=True)
        assert problem in done.stderr
        notes = [line for line in done.stderr.splitlines() if "is compiled here" in line]
        assert len(notes) == bool(problem)
        assert all(f"envsync bundle verify {bundle.name}`" in note for note in notes)
        assert len(compiled_in(tmp_path / "env")) >= 5
        again = run_envsync("sync", *COMPILED, check=True)
        assert "compiled here" not in again.stderr

    def test_a_cache(self, run_envsync: Run, bundle: Path, tmp_path: Path) -> None:
        """`cache add` takes it, as does a bundle that is made of this one."""
        run_envsync("cache", "add", *COMPILED[:2], *COMPILED[4:], check=True)
        assert len(compiled_in(tmp_path / "node")) >= 5
        asked = ("--lock", "bundle/pylock.toml", "--to", "again", "--cache-dir", "other", "--compile-bytecode")
        run_envsync("bundle", *asked, check=True)
        assert tree(bundle) == tree(tmp_path / "again")

    def test_a_repair(self, run_envsync: Run, bundle: Path, tmp_path: Path) -> None:
        """What an environment and its cache have both lost comes from the bundle again."""
        run_envsync("sync", *COMPILED, check=True)
        before = compiled_in(tmp_path / "env")
        for path in [*(tmp_path / "env").rglob("*.pyc"), *(tmp_path / "node").rglob("*.pyc")]:
            path.unlink()
        rewritten(bundle, lambda name, data: data + b"more" if "__pycache__/shout" in name else data)
        run_envsync("check", "--repair", *COMPILED[:-1], check=True)
        after = compiled_in(tmp_path / "env")
        assert {path for path in before if after[path] != before[path]} == {path for path in before if "shout" in path}

    def test_for_others(self, run_envsync: Run, tmp_path: Path) -> None:
        """A Python that is here compiles for all platforms; for one that is not here, it is said that nobody does."""
        own = ".".join(map(str, sys.version_info[:2]))
        asked = ("--lock", LOCK, "--to", "bundle", "--compile-bytecode", "--python", own, "--python", "3.77", "--json")
        told = json.loads(run_envsync("bundle", *asked, "--platform", "win_amd64", check=True).stdout)
        assert len(told["bytecode"]) == 4
        assert [note.partition(":")[0] for note in told["notes"]] == [
            "there is no bytecode for Python 3.77 on win_amd64"
        ]

    def test_verify_and_prune(self, run_envsync: Run, bundle: Path) -> None:
        """It is compared, made again where it is damaged, and removed with what nobody needs."""
        assert "5 wheels and 4 files of bytecode, " in run_envsync("bundle", "verify", str(bundle), check=True).stdout
        path = min(bundle.glob("bytecode/*/*.zip"))
        content = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(b"#")
        done = run_envsync("bundle", "verify", str(bundle))
        assert (done.returncode, f"damaged: `{path.relative_to(bundle)}`" in done.stdout) == (1, True)
        run_envsync("bundle", "--lock", LOCK, "--to", str(bundle), "--compile-bytecode", check=True)
        assert path.read_bytes() == content
        run_envsync("bundle", "--lock", NEXT, "--to", str(bundle), check=True)
        told = json.loads(
            run_envsync("bundle", "prune", str(bundle), "--older-than", "0s", "--json", check=True).stdout
        )
        assert len(told["bytecode"]) == 4
        assert not list(bundle.glob("bytecode/*"))
        run_envsync("bundle", "verify", str(bundle), check=True)


@pytest.mark.oracle
@pytest.mark.parametrize("options", [(), ("--compile-bytecode",)], ids=["", "with bytecode"])
class TestOtherInstallers:
    """What reads PEP 751 reads a bundle."""

    @pytest.fixture
    def bundle(self, tmp_path: Path, run_envsync: Run, options: tuple[str, ...]) -> Path:
        run_envsync("bundle", "--lock", LOCK, "--to", "bundle", *options, check=True)
        assert (b"bytecode" in (tmp_path / "bundle/pylock.toml").read_bytes()) == bool(options)
        return tmp_path / "bundle"

    def made(self, env: Path) -> str:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
        return str(env / "bin/python")

    def names(self, env: Path) -> set[str]:
        return {path.name.partition(".dist-info")[0] for path in site_packages(env).glob("*.dist-info")}

    @pytest.mark.skipif(not UV, reason="there is no uv")
    def test_uv(self, bundle: Path, tmp_path: Path) -> None:
        """`uv pip sync` installs just what is in it, without an index."""
        python = self.made(tmp_path / "env")
        words = [UV, "pip", "sync", "--offline", "--no-config", "--no-build", "--cache-dir", str(tmp_path / "cache")]
        subprocess.run([*words, "--python", python, str(bundle / "pylock.toml")], check=True, capture_output=True)
        assert self.names(tmp_path / "env") >= {"greet-1.0", "tally-1.0"}
        assert len(self.names(tmp_path / "env")) == 5

    def test_pip(self, bundle: Path, tmp_path: Path) -> None:
        """`pip install -r` does."""
        python = self.made(tmp_path / "env")
        words = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", "-r"]
        known = subprocess.run([*words[:3], "install", "--help"], check=True, capture_output=True, text=True)
        if "pylock" not in known.stdout:
            pytest.skip("this pip reads no pylock.toml")
        done = subprocess.run([*words, str(bundle / "pylock.toml")], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(self.names(tmp_path / "env")) == 5


class TestVerify:
    """`bundle verify` reads everything, and says what is wrong."""

    def test_whole(self, run_envsync: Run, bundle: Path) -> None:
        """How much was compared is said."""
        done = run_envsync("bundle", "verify", str(bundle), check=True)
        assert "5 wheels, 8.3 kB, all as they ought to be" in done.stdout

    @pytest.mark.empty_cache
    def test_damaged(self, run_envsync: Run, bundle: Path) -> None:
        """It exits with 1; the bundle made again is whole."""
        path = next(bundle.glob("wheels/*/greet-*.whl"))
        path.chmod(0o600)
        path.write_bytes(b"#" * path.stat().st_size)
        done = run_envsync("bundle", "verify", str(bundle))
        assert done.returncode == 1
        assert f"damaged: `{path.relative_to(bundle)}`" in done.stdout
        told = json.loads(run_envsync("bundle", "verify", str(bundle), "--json").stdout)
        assert [item["path"] for item in told["damaged"]] == [str(path.relative_to(bundle))]
        done = run_envsync("run", "--lock", str(bundle / "pylock.toml"), "--env", "env", "--", "python", "-V")
        assert done.returncode == 125
        assert "sha256" in done.stderr
        told = json.loads(run_envsync("bundle", "--lock", LOCK, "--to", str(bundle), "--json", check=True).stdout)
        assert (told["added"], told["changed"]) == ([str(path.relative_to(bundle))], False)
        run_envsync("bundle", "verify", str(bundle), check=True)

    def test_no_bundle(self, run_envsync: Run, tmp_path: Path) -> None:
        """Nothing is looked for, or made, in a directory that is none."""
        for command in ("verify", "prune"):
            done = run_envsync("bundle", command, str(tmp_path))
            assert done.returncode == 2
            assert "is no bundle" in done.stderr
        assert not (tmp_path / ".lock").exists()


def test_prune(run_envsync: Run, bundle: Path) -> None:
    """What nobody needs goes, if it is old enough; that is said."""
    run_envsync("bundle", "--lock", NEXT, "--to", str(bundle), check=True)
    everything = tree(bundle)
    done = run_envsync("bundle", "prune", str(bundle), check=True)
    assert "removed 0 wheels, 0 B, and 0 versions" in done.stdout
    done = run_envsync("bundle", "prune", str(bundle), "--older-than", "0s", "--dry-run", "--json", check=True)
    told = json.loads(done.stdout)
    assert tree(bundle) == everything
    run_envsync("bundle", "prune", str(bundle), "--older-than", "0s", check=True)
    assert {path for path in everything.keys() - tree(bundle).keys() if path.startswith("wheels/")} == set(
        told["wheels"]
    )
    assert told["wheels"]
    run_envsync("bundle", "verify", str(bundle), check=True)
    run_envsync("run", "--lock", str(bundle / "pylock.toml"), "--env", "env", "--", "python", "-c", "import greet")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param(KILL, [], marks=pytest.mark.slow, id=KILL.name),
        pytest.param(KILLS[1], [], marks=pytest.mark.slow, id=KILLS[1].name),
        pytest.param(KILL, ["--compile-bytecode"], marks=pytest.mark.slow, id=f"{KILL.name}, with bytecode"),
    ],
)
def test_killed_at_each_change(run_envsync: Run, bundle: Path, tmp_path: Path, kind: Kind, options: list[str]) -> None:
    """The former bundle is whole, or the next one; and the next attempt succeeds."""
    former = (bundle / "pylock.toml").read_bytes()
    asked = ["bundle", "-q", "--lock", NEXT, *options, "--to"]
    run_envsync(*asked, "next", check=True)
    coming = (tmp_path / "next/pylock.toml").read_bytes()
    seen = set()
    for nth in range(1, 200):
        place = tmp_path / f"bundle-{nth}"
        shutil.copytree(bundle, place)
        blow = strike([*asked, str(place)], nth, kind)
        now = (place / "pylock.toml").read_bytes()
        seen.add(now)
        assert now in (former, coming)
        assert verified(Bundle(str(place)), now).damage == ()
        if not blow.struck:
            break
        assert os.WIFSIGNALED(blow.status)
        assert strike([*asked, str(place)], 0, kind).status == 0
        assert (place / "pylock.toml").read_bytes() == coming
        shutil.rmtree(place)
    else:
        pytest.fail("it never came to its end")
    assert seen == {former, coming}


WRITER = """\
import subprocess, sys
*command, directory, one, other, times, options = sys.argv[1:]
for turn in range(int(times)):
    lock = (one, other)[turn % 2]
    subprocess.run([*command, "bundle", "-q", "--lock", lock, "--to", directory, *options.split()], check=True)
    subprocess.run([*command, "bundle", "prune", "-q", directory], check=True)
"""
READER = """\
import subprocess, sys
*command, directory, place, times, options = sys.argv[1:]
for turn in range(int(times)):
    env = f"{place}/env-{turn}"
    words = ["--lock", f"{directory}/pylock.toml", "--env", env, "--cache-dir", f"{place}/cache", "--no-index"]
    words += options.split()
    show = "from importlib.metadata import version; print(*(f'{n}=={version(n)}' for n in ('greet', 'shout', 'tally')))"
    done = subprocess.run([*command, "run", *words, "--", "python", "-c", show], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if done.returncode or "note: " in line]
    print(done.returncode, done.stdout.strip(), " ".join(said), sep="|", flush=True)
"""


@pytest.mark.parametrize(
    ("writers", "readers", "times", "options"),
    [
        (2, 3, 2, ""),
        pytest.param(4, 20, 12, "", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
        pytest.param(4, 20, 4, "--compile-bytecode", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_writers_and_readers(
    bundle: Path, tmp_path: Path, writers: int, readers: int, times: int, options: str
) -> None:
    """Some replace a bundle all the time, and each node that reads it has one version whole, and nothing to say."""
    start = [sys.executable, "-c"]
    last = [*envsync_command(), str(bundle)]
    writing = [
        subprocess.Popen([*start, WRITER, *last, *random.Random(number).sample([LOCK, NEXT], 2), str(times), options])
        for number in range(writers)
    ]
    reading = []
    for number in range(readers):
        place = tmp_path / f"node-{number}"
        place.mkdir()
        words = [*start, READER, *last, str(place), str(times), options]
        reading.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
    found = [line for process in reading for line in process.communicate()[0].splitlines()]
    assert [process.wait() for process in writing] == [0] * writers
    assert len(found) == readers * times
    assert {line.split("|")[0] for line in found} == {"0"}, found
    assert {line.split("|")[1] for line in found} <= versions()
    assert {line.split("|")[2] for line in found} == {""}, found


def versions() -> set[str]:
    """What the two lock files have, as a node shows it."""
    found = set()
    for path in (LOCK, NEXT):
        packages: Any = {each["name"]: each["version"] for each in tomllib.loads(Path(path).read_text())["packages"]}
        found.add(" ".join(f"{name}=={packages[name]}" for name in ("greet", "shout", "tally")))
    return found


def test_killed_at_any_moment(run_envsync: Run, bundle: Path, tmp_path: Path) -> None:
    """A few times, wherever it is just then: what is there is whole."""
    for turn in range(6):
        lock = (NEXT, LOCK)[turn % 2]
        words = [*envsync_command(), "bundle", "-q", "--lock", lock, "--to", str(bundle)]
        process = subprocess.Popen(words)
        try:
            process.wait(0.15 + 0.05 * turn)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert run_envsync("bundle", "verify", str(bundle)).returncode == 0
