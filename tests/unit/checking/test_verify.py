"""Every kind of damage is found and named, and nothing else is: not in our environments, not in those of others."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envsync
from envsync.checking import compare, verify
from envsync.checking.verify import Finding, Verified
from envsync.errors import FilesystemError
from envsync.installed import leftovers
from envsync.installed.ledger import load_ledger
from envsync.launch import Environment
from envsync.python import interpreter
from envsync.python.facts import Layout
from envsync.store.store import Store
from envsync.system import core, native
from envsync.transaction import skeleton
from tests.environments import FIXTURES
from tests.wheels import build_wheel, row, sha256_of

VERSION = "%d.%d" % sys.version_info[:2]  # noqa: UP031
SITE, INCLUDE = f"lib/python{VERSION}/site-packages", f"include/site/python{VERSION}"
ODD = 'alpha/odd, "name".txt'
if sys.platform == "win32":
    SITE, INCLUDE = "Lib/site-packages", f"Include/site/python{VERSION}"
    ODD = "alpha/odd, name.txt"
LAYOUT = Layout(SITE, SITE, core.BIN, INCLUDE)
ALPHA, BETA = f"{SITE}/alpha-1.0.dist-info", f"{SITE}/beta-1.0.dist-info"
uv = pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")


class Place(NamedTuple):
    """An environment, and the store that it was made from."""

    env: Path
    cache: Path

    @property
    def environment(self) -> Environment:
        return Environment(str(self.env))

    @property
    def layout(self) -> Layout:
        return skeleton.layout_of(self.environment, interpreter.inspect(str(self.env / core.PYTHON), str(self.cache)))

    @property
    def site(self) -> Path:
        return self.env / SITE

    def verify(self, *, store: bool = True, **options: object) -> Verified:
        kept = Store(str(self.cache)) if store else None
        return verify.verify(self.environment, LAYOUT, load_ledger(self.environment), kept, **options)  # type: ignore[arg-type]

    def sync(self, *wheels: str) -> None:
        lock = self.env.parent / "pylock.toml"
        lines = ['lock-version = "1.0"', 'created-by = "tests"']
        for wheel in wheels:
            filename, place = os.path.basename(wheel), core.slashed(wheel)
            name, version = filename.split("-")[:2]
            lines += ["[[packages]]", f'name = "{name.replace("_", "-")}"', f'version = "{version}"']
            lines += [
                f'wheels = [{{name = "{filename}", path = "{place}", hashes = {{sha256 = "{sha256_of(wheel)}"}}}}]'
            ]
        lock.write_text("\n".join(lines))
        envsync.sync(lock, env=self.env, cache_dir=self.cache)


def wheels_in(directory: Path) -> tuple[str, str]:
    """Build two wheels with all that wheels may have, which share files."""
    alpha = build_wheel(
        directory,
        "alpha",
        files={
            "alpha/__init__.py": "x = 1\n",
            "alpha/empty.py": "",
            "alpha/sub/mod.py": "y = 2\n",
            "alpha/_native.so": b"\x7fELF" + bytes(range(256)) * 40,
            "alpha/tool.sh": "#!/bin/sh\n",
            ODD: "odd",
            "shared/__init__.py": "",
            "shared/common.py": "owner = 'alpha'\n",
            "alpha_single.py": "z = 3\n",
        },
        entry_points={"console_scripts": {"alpha": "alpha:main", "tool": "alpha:tool"}},
        data={
            "scripts/run-alpha": "#!python -u\nprint(1)\n",
            "scripts/plain-alpha": "#!/bin/sh\n",
            "data/share/alpha/readme.txt": "read me\n",
            "headers/alpha.h": "int alpha;\n",
            "platlib/alpha/plat.py": "p = 4\n",
        },
        executable=["alpha/tool.sh"],
    )
    beta = build_wheel(
        directory,
        "beta",
        files={
            "beta/__init__.py": "x = 1\n",
            "shared/__init__.py": "",
            "shared/common.py": "owner = 'beta'\n",
            "shared/of_beta.py": "b = 1\n",
        },
    )
    return alpha, beta


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An environment that envsync made of two wheels. Not to be changed."""
    root = tmp_path_factory.mktemp("made")
    place = Place(root / "env", root / "cache")
    place.sync(*wheels_in(root))
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """A copy of it. The store is the same."""
    shutil.copytree(made.env, tmp_path / "env", symlinks=True)
    return Place(tmp_path / "env", made.cache)


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An environment of `python -m venv`, in which pip installed a fixture. Not to be changed."""
    root = tmp_path_factory.mktemp("piped")
    run(sys.executable, "-m", "venv", root / "env")
    wheel = FIXTURES / "wheels" / "greet-1.0-py3-none-any.whl"
    run(root / "env" / core.PYTHON, "-m", "pip", "install", "--no-index", "--no-deps", "-q", wheel)
    return Place(root / "env", root / "cache")


@pytest.fixture
def pip_made(piped: Place, tmp_path: Path) -> Place:
    """A copy of it."""
    shutil.copytree(piped.env, tmp_path / "env", symlinks=True)
    return Place(tmp_path / "env", tmp_path / "cache")


def run(*words: str | Path) -> None:
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*map(str, words)], check=True, capture_output=True, timeout=100, env=variables)


def brief(report: Verified) -> list[tuple[str, str, str]]:
    return [finding[:3] for finding in report.findings]


def change(path: Path, edit: Callable[[bytes], bytes], *, keep_time: bool = False) -> None:
    """Change a file's bytes in place, through whatever protects it."""
    status = path.stat()
    content = edit(path.read_bytes())
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(status.st_mode)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def replace_record_line(place: Place, dist_info: str, path: str, content: bytes, *, keep_time: bool = True) -> None:
    """Make RECORD say of a file that it has this content."""
    record = place.env / dist_info / "RECORD"
    lines = record.read_text().splitlines()
    new = ",".join(row(path, content))
    lines = [new if line.startswith(path + ",") else line for line in lines]
    assert new in lines
    change(record, lambda _: ("\n".join(lines) + "\n").encode(), keep_time=keep_time)


class TestSound:
    """What is as it was installed has no findings."""

    def test_our_environment(self, made: Place) -> None:
        """All of it is looked at, and nothing is found, with the store and without it."""
        report = made.verify()
        assert report.findings == ()
        assert report.is_sound
        assert report.distributions == 2
        assert report.files > 20
        assert report.bytes > 10_000
        assert made.verify(store=False).findings == ()
        assert made.layout == LAYOUT

    def test_a_copy_of_it(self, place: Place) -> None:
        """The tests below begin with something that is sound."""
        assert place.verify().findings == ()

    def test_the_fixtures(self, tmp_path: Path) -> None:
        """Also once they were imported and run."""
        place = Place(tmp_path / "env", tmp_path / "cache")
        envsync.sync(FIXTURES / "pylock.toml", env=place.env, cache_dir=place.cache)
        run(place.env / "bin/greet")
        assert list(place.site.rglob("*.pyc"))
        report = place.verify()
        assert report.findings == ()
        assert report.distributions == 5

    def test_with_a_direct_url(self, tmp_path: Path) -> None:
        """direct_url.json is known from installed.json."""
        wheel = build_wheel(tmp_path, "demo")
        lock = tmp_path / "requirements.txt"
        lock.write_text(f"demo @ file://{wheel} --hash=sha256:{sha256_of(wheel)}\n")
        place = Place(tmp_path / "env", tmp_path / "cache")
        envsync.sync(lock, env=place.env, cache_dir=place.cache)
        path = f"{SITE}/demo-1.0.dist-info/direct_url.json"
        assert place.verify().findings == ()
        change(place.env / path, flip, keep_time=True)
        assert brief(place.verify()) == [("changed", path, "demo")]

    def test_of_venv_and_pip(self, piped: Place) -> None:
        """pip, what it installed, and all that `venv` makes."""
        assert piped.verify().findings == ()

    def test_of_pip_with_ours_beside_it(self, pip_made: Place) -> None:
        """What envsync installs in such an environment, too."""
        envsync.sync(FIXTURES / "pylock.toml", env=pip_made.env, cache_dir=pip_made.cache)
        assert pip_made.verify().findings == ()

    @uv
    @pytest.mark.parametrize("mode", ["copy", "hardlink"])
    def test_of_uv(self, tmp_path: Path, mode: str) -> None:
        """All that `uv venv` makes, and what uv installed."""
        place = Place(tmp_path / "env", tmp_path / "cache")
        cache = ("--cache-dir", str(tmp_path / "uv"), "--no-config", "--offline")
        run("uv", "venv", "--python", sys.executable, place.env, *cache)
        wheels = [*(FIXTURES / "wheels").glob("*-1.0-*.whl"), *wheels_in(tmp_path)]
        words = ("--no-index", "--no-deps", "--link-mode", mode)
        run("uv", "pip", "install", "--python", place.env / "bin/python", *words, *map(str, wheels), *cache)
        assert place.verify().findings == ()

    def test_reinstalled_by_pip(self, pip_made: Place, tmp_path: Path) -> None:
        """Who reinstalled it says what it is: our own record does not count any more."""
        wheel = build_wheel(tmp_path, "demo", files={"demo.py": "x = 1\n"})
        pip_made.sync(wheel)
        (tmp_path / "other").mkdir()
        other = build_wheel(tmp_path / "other", "demo", files={"demo.py": "x = 2\n", "more.py": ""})
        run(pip_made.env / core.PYTHON, "-m", "pip", "install", "--no-index", "--force-reinstall", "-q", other)
        assert pip_made.verify().findings == ()

    def test_editable(self, pip_made: Place) -> None:
        """What an editable install leaves in site-packages is recorded, and its sources are not looked at."""
        site = pip_made.site
        dist_info = site / "mine-0.dist-info"
        dist_info.mkdir()
        files = {"__editable__.mine-0.pth": "/home/me/src\n", "mine-0.dist-info/METADATA": "Name: mine\n"}
        for path, text in files.items():
            (site / path).write_text(text)
        rows = [*(",".join(row(path, text)) for path, text in files.items()), "mine-0.dist-info/RECORD,,"]
        (dist_info / "RECORD").write_text("\r\n".join(rows) + "\r\n")
        assert pip_made.verify().findings == ()
        (site / "theirs.pth").write_text("/home/me/more\n")
        assert brief(pip_made.verify()) == [("unowned", f"{SITE}/theirs.pth", "")]

    def test_symlinked_lib64(self, place: Place) -> None:
        """A directory that links to another one in the environment is followed."""
        shutil.copy(place.site / "alpha_single.py", place.site / "linked.py")
        dist_info = place.site / "theirs-1.dist-info"
        dist_info.mkdir()
        (dist_info / "METADATA").touch()
        if not (place.env / "lib64").exists():
            (place.env / "lib64").symlink_to("lib")
        path = f"../../../lib64/python{VERSION}/site-packages/linked.py"
        (dist_info / "RECORD").write_text(f"{path},,6\ntheirs-1.dist-info/METADATA,,\ntheirs-1.dist-info/RECORD,,\n")
        assert place.verify().findings == ()


FILES = {
    "module": (f"{SITE}/alpha/sub/mod.py", "alpha"),
    "single module": (f"{SITE}/alpha_single.py", "alpha"),
    "shared object": (f"{SITE}/alpha/_native.so", "alpha"),
    "odd name": (f"{SITE}/{ODD}", "alpha"),
    "shared file": (f"{SITE}/shared/common.py", "beta"),
    "METADATA": (f"{ALPHA}/METADATA", "alpha"),
    "INSTALLER": (f"{ALPHA}/INSTALLER", "alpha"),
    "RECORD": (f"{ALPHA}/RECORD", "alpha"),
    "RECORD of the wheel": (f"{BETA}/RECORD", "beta"),
    "entry point": ("bin/alpha", "alpha"),
    "script": ("bin/plain-alpha", "alpha"),
    "rewritten script": ("bin/run-alpha", "alpha"),
    "data": ("share/alpha/readme.txt", "alpha"),
    "header": (f"include/site/python{VERSION}/alpha/alpha.h", "alpha"),
    "platlib": (f"{SITE}/alpha/plat.py", "alpha"),
}


@pytest.mark.parametrize(("path", "name"), FILES.values(), ids=FILES.keys())
class TestFile:
    """Damage of one file names the file and its distribution, and nothing else."""

    def test_deleted(self, place: Place, path: str, name: str) -> None:
        (place.env / path).unlink()
        report = place.verify()
        assert brief(report) == [("missing", path, name)]
        assert report.damaged == {name}
        assert not report.is_sound

    def test_emptied(self, place: Place, path: str, name: str) -> None:
        change(place.env / path, lambda _: b"")
        assert brief(place.verify()) == [("changed", path, name)]

    def test_bit_flipped(self, place: Place, path: str, name: str) -> None:
        """Size and time are the same."""
        change(place.env / path, flip, keep_time=True)
        report = place.verify()
        assert brief(report) == [("changed", path, name)]

    def test_appended(self, place: Place, path: str, name: str) -> None:
        change(place.env / path, lambda content: content + b"\n", keep_time=True)
        assert brief(place.verify()) == [("changed", path, name)]

    def test_symbolic_link(self, place: Place, path: str, name: str, tmp_path: Path) -> None:
        """Even to a file of the same content."""
        (place.env / path).rename(tmp_path / "elsewhere")
        (place.env / path).symlink_to(tmp_path / "elsewhere")
        assert place.verify().findings == (Finding("changed", path, name, "it is a symbolic link"),)

    def test_directory(self, place: Place, path: str, name: str) -> None:
        (place.env / path).unlink()
        (place.env / path).mkdir()
        assert place.verify().findings == (Finding("changed", path, name, "it is a directory"),)

    def test_pipe(self, place: Place, path: str, name: str) -> None:
        """Nobody waits for a writer."""
        (place.env / path).unlink()
        os.mkfifo(place.env / path)
        assert place.verify().findings == (Finding("changed", path, name, "it is a pipe"),)

    def test_socket(self, place: Place, path: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        (place.env / path).unlink()
        monkeypatch.chdir((place.env / path).parent)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.basename(path))
            assert place.verify().findings == (Finding("changed", path, name, "it is a socket"),)

    @pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
    def test_unreadable(self, place: Place, path: str, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """The operating system's words say why, wherever it fails."""
        original = core.open_file
        damaged = str(place.env / path)

        def fail(path: str, *rest: int, **options: int) -> int:
            if path == damaged:
                raise OSError(number, os.strerror(number), path)
            return original(path, *rest, **options)

        monkeypatch.setattr(core, "open_file", fail)
        report = place.verify()
        assert brief(report) == [("changed", path, name)]
        assert os.strerror(number) in report.findings[0].detail


class TestDamage:
    """Damage of other kinds."""

    def test_read_error(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that cannot read what it could open."""

        def fail(fd: int, *rest: object) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(native, "pread_into", fail)
        report = place.verify()
        assert {finding.detail for finding in report.findings} == {"it cannot be read: Input/output error"}
        assert report.damaged == {"alpha", "beta"}

    def test_written_through_to_the_store(self, tmp_path: Path) -> None:
        """A file that is a link to the store's is read like any other."""
        place = Place(tmp_path / "env", tmp_path / "cache")
        place.sync(*wheels_in(tmp_path))
        assert (place.site / "alpha/sub/mod.py").stat().st_nlink > 1
        change(place.site / "alpha/sub/mod.py", flip, keep_time=True)
        assert place.verify().findings == (
            Finding("changed", f"{SITE}/alpha/sub/mod.py", "alpha", "sha256 is not that of the wheel"),
        )

    @pytest.mark.parametrize("keep_time", [True, False])
    @pytest.mark.parametrize("dist_info", [ALPHA, BETA])
    def test_record_edited_along(self, place: Place, dist_info: str, keep_time: bool) -> None:
        """A file and its line in RECORD were changed consistently: the wheel's manifest is what counts."""
        name = dist_info.rpartition("/")[2].partition("-")[0]
        path = f"{name}/__init__.py"
        change(place.site / path, flip, keep_time=True)
        replace_record_line(place, dist_info, path, (place.site / path).read_bytes(), keep_time=keep_time)
        assert brief(place.verify()) == [
            ("changed", changed, name) for changed in sorted([f"{SITE}/{path}", f"{dist_info}/RECORD"])
        ]

    def test_record_edited_along_without_the_store(self, place: Place) -> None:
        """Without the wheel, RECORD's size and time give it away."""
        change(place.site / "alpha/__init__.py", flip, keep_time=True)
        content = (place.site / "alpha/__init__.py").read_bytes()
        replace_record_line(place, ALPHA, "alpha/__init__.py", content, keep_time=False)
        report = place.verify(store=False)
        assert brief(report) == [("changed", f"{ALPHA}/RECORD", "alpha")]

    def test_record_edited_for_a_script(self, place: Place) -> None:
        """RECORD's word is taken for a script, but not if somebody has written it since we did."""
        change(place.env / "bin/alpha", lambda content: content + b"import evil\n")
        content = (place.env / "bin/alpha").read_bytes()
        replace_record_line(place, ALPHA, "../../../bin/alpha", content, keep_time=False)
        assert brief(place.verify()) == [("changed", f"{ALPHA}/RECORD", "alpha")]

    @pytest.mark.parametrize(
        "edit",
        [
            lambda text: text.replace("../../../bin/alpha,", "../../../bin/alphb,"),
            lambda text: text.replace("../../../bin/alpha,sha256=", "../../../bin/alpha,sha255="),
            lambda text: text.replace("\n", "\r", 1),
            lambda text: text.replace("\n", "\r\n"),
            lambda text: text + text.splitlines()[0] + "\n",
            lambda text: text + "extra.py,,\n",
            lambda text: text.replace("alpha/__init__.py,sha256=", "alpha/__init__.py,sha512="),
            lambda text: "\0" * len(text),
            lambda text: '"' * (len(text) - 1),
            lambda text: text + "x" * 200_000,
            lambda text: text + "extra.py,," + "9" * 5000 + "\n",
            lambda text: "\n".join(reversed(text.splitlines())),
        ],
    )
    def test_record_garbled(self, place: Place, edit: Callable[[str], str]) -> None:
        """What is not exactly the lines that we wrote is found, and nobody but the distribution is named."""
        change(place.env / ALPHA / "RECORD", lambda content: edit(content.decode()).encode(), keep_time=True)
        report = place.verify()
        assert report.damaged == {"alpha"}
        assert {finding.path for finding in report.findings} <= {f"{ALPHA}/RECORD", "bin/alpha"}
        assert place.verify(store=False).damaged <= {"alpha"}

    @pytest.mark.parametrize("store", [True, False])
    def test_dist_info_half_gone(self, place: Place, store: bool) -> None:
        for name in ("RECORD", "METADATA", "WHEEL"):
            (place.env / ALPHA / name).unlink()
        report = place.verify(store=store)
        names = ("METADATA", "RECORD", "WHEEL") if store else ("METADATA", "RECORD")
        assert brief(report) == [("missing", f"{ALPHA}/{name}", "alpha") for name in names]

    def test_dist_info_emptied(self, place: Place) -> None:
        """The files of the package are known all the same, so that they do not seem to be nobody's."""
        for path in (place.env / ALPHA).iterdir():
            path.unlink()
        report = place.verify()
        assert {finding.kind for finding in report.findings} == {"missing"}
        assert report.damaged == {"alpha"}
        assert all(finding.path.startswith(ALPHA) for finding in report.findings)
        assert {finding.kind for finding in place.verify(store=False).findings} == {"missing"}

    @pytest.mark.parametrize("store", [True, False])
    def test_dist_info_gone(self, place: Place, store: bool) -> None:
        """The package is left, and known from installed.json."""
        shutil.rmtree(place.env / ALPHA)
        assert brief(place.verify(store=store)) == [("missing", ALPHA, "alpha")]
        (place.site / "alpha/sub/mod.py").unlink()
        expected = [("missing", ALPHA, "alpha"), ("missing", f"{SITE}/alpha/sub/mod.py", "alpha")]
        assert brief(place.verify(store=store)) == (expected if store else expected[:1])

    @pytest.mark.parametrize("store", [True, False])
    def test_uninstalled(self, place: Place, store: bool) -> None:
        """What was removed whole is named once, and what it shared is another's now."""
        for path in ("beta", f"{BETA.rpartition('/')[2]}"):
            shutil.rmtree(place.site / path)
        (place.site / "shared/of_beta.py").unlink()
        change(place.site / "shared/common.py", lambda _: b"owner = 'alpha'\n")
        assert brief(place.verify(store=store)) == [("missing", BETA, "beta")]

    def test_half_deleted(self, place: Place) -> None:
        """`rm -rf` was interrupted: every file that is missing is named."""
        gone = sorted(path for path in place.site.rglob("*") if path.is_file() and ".envsync" not in path.parts)[::2]
        for path in gone:
            path.unlink()
        report = place.verify()
        assert {f"{SITE}/{path.relative_to(place.site)}" for path in gone} == {
            finding.path for finding in report.findings
        }
        assert {finding.kind for finding in report.findings} == {"missing"}

    def test_site_packages_gone(self, place: Place) -> None:
        shutil.rmtree(place.site)
        report = place.verify()
        assert ("missing", SITE, "") in brief(report)
        assert report.damaged == {"alpha", "beta"}
        place.site.touch()
        assert ("changed", SITE, "") in brief(place.verify())

    @pytest.mark.parametrize("path", ["bin/alpha", "bin/plain-alpha", "bin/run-alpha", f"{SITE}/alpha/tool.sh"])
    def test_not_executable(self, place: Place, path: str) -> None:
        (place.env / path).chmod(0o644)
        assert place.verify().findings == (Finding("changed", path, "alpha", "it is not executable any more"),)

    def test_directory_leads_outside(self, place: Place, tmp_path: Path) -> None:
        """A package that was replaced by a link is not looked at, whatever is there."""
        (place.site / "alpha").rename(tmp_path / "outside")
        (place.site / "alpha").symlink_to(tmp_path / "outside")
        report = place.verify()
        assert {finding.detail for finding in report.findings} == {"a symbolic link leads out of the environment"}
        assert report.damaged == {"alpha"}
        assert all(finding.path.startswith(f"{SITE}/alpha/") for finding in report.findings)

    def test_dist_info_leads_outside(self, place: Place, tmp_path: Path) -> None:
        (place.env / ALPHA).rename(tmp_path / "outside")
        (place.env / ALPHA).symlink_to(tmp_path / "outside")
        report = place.verify()
        assert report.damaged == {"alpha"}
        assert {finding.detail for finding in report.findings} == {"a symbolic link leads out of the environment"}

    def test_two_dist_infos(self, place: Place) -> None:
        shutil.copytree(place.env / BETA, place.site / "beta-0.9.dist-info")
        record = place.site / "beta-0.9.dist-info/RECORD"
        change(record, lambda content: content.replace(b"beta-1.0", b"beta-0.9"))
        report = place.verify()
        assert brief(report) == [("changed", BETA, "beta"), ("changed", f"{SITE}/beta-0.9.dist-info", "beta")][::-1]

    def test_installed_json_gone(self, place: Place) -> None:
        """RECORD is believed, and what is damaged found by it. Of shared files any content of theirs will do."""
        (place.env / ".envsync/installed.json").unlink()
        assert place.verify().findings == ()
        change(place.site / "shared/common.py", flip, keep_time=True)
        change(place.site / "alpha/_native.so", flip, keep_time=True)
        assert place.verify().damaged == {"alpha", "beta"}

    def test_store_entry_damaged(self, made: Place, place: Place, tmp_path: Path) -> None:
        """A manifest that cannot be read is as good as none."""
        place = Place(place.env, tmp_path / "cache")
        shutil.copytree(made.cache, place.cache)
        for manifest in place.cache.glob("v1/wheels/*/manifest.json"):
            change(manifest, flip)
        assert place.verify().findings == ()

    def test_shared_file(self, place: Place) -> None:
        """The content that counts is that of the distribution whose name sorts last, and that one is named."""
        path = f"{SITE}/shared/common.py"
        change(place.env / path, lambda _: b"owner = 'alpha'\n")
        assert brief(place.verify()) == [("changed", path, "beta")]
        assert brief(place.verify(store=False)) == [("changed", path, "beta")]


class TestOthers:
    """What pip or uv installed is compared with its RECORD."""

    DIST_INFO = f"{SITE}/greet-1.0.dist-info"

    def module(self, place: Place) -> Path:
        return next(iter(sorted((place.site / "greet").glob("*.py"))))

    def test_changed(self, pip_made: Place) -> None:
        module = self.module(pip_made)
        path = f"{SITE}/greet/{module.name}"
        change(module, flip, keep_time=True)
        assert pip_made.verify().findings == (Finding("changed", path, "greet", "sha256 is not that of RECORD"),)
        change(module, lambda _: b"")
        assert pip_made.verify().findings[0].detail.startswith("size 0 instead of ")
        module.unlink()
        assert pip_made.verify().findings == (Finding("missing", path, "greet", "RECORD has it"),)

    def test_script(self, pip_made: Place) -> None:
        change(pip_made.env / "bin/greet", lambda content: content + b"#")
        assert brief(pip_made.verify()) == [("changed", "bin/greet", "greet")]

    @pytest.mark.parametrize("name", ["METADATA", "RECORD"])
    def test_gone(self, pip_made: Place, name: str) -> None:
        (pip_made.env / self.DIST_INFO / name).unlink()
        report = pip_made.verify()
        assert report.damaged == {"greet"}
        assert brief(report)[0] == ("missing", f"{self.DIST_INFO}/{name}", "greet")

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b", b"a,,12x\n", b'"', b"\0,,\n", b"a,," + b"9" * 5000])
    def test_record_unreadable(self, pip_made: Place, content: bytes) -> None:
        (pip_made.env / self.DIST_INFO / "RECORD").write_bytes(content)
        report = pip_made.verify()
        assert report.damaged == {"greet"}
        assert ("changed", f"{self.DIST_INFO}/RECORD", "greet") in brief(report)

    def test_bytecode(self, pip_made: Place) -> None:
        """Which RECORD lists, but which anybody may throw away or make anew."""
        compiled = sorted((pip_made.site / "greet").rglob("*.pyc"))
        compiled[0].unlink()
        compiled[1].write_bytes(b"damaged")
        assert pip_made.verify().findings == ()

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "../../../../secret", "../../../bin/../../secret", "/{env}/../secret"]
    )
    def test_record_leads_outside(self, pip_made: Place, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such a line is named, and the file never opened."""
        (pip_made.env.parent / "secret").write_text("secret")
        path = path.replace("/{env}", str(pip_made.env))
        opened = watch(monkeypatch)
        with (pip_made.env / self.DIST_INFO / "RECORD").open("a") as record:
            record.write(f"{path},,\r\n")
        finding = Finding("changed", path, "greet", "RECORD lists it, outside of the environment")
        assert pip_made.verify().findings == (finding,)
        assert opened
        assert all(name.startswith(str(pip_made.env)) for name in opened)

    def test_absolute_path_inside(self, pip_made: Place) -> None:
        """Is as good as a relative one."""
        (pip_made.env / "share").mkdir()
        (pip_made.env / "share/doc.txt").write_text("doc")
        with (pip_made.env / self.DIST_INFO / "RECORD").open("a") as record:
            record.write(",".join(row(f"{pip_made.env}/share/doc.txt", "doc")) + "\r\n")
        assert pip_made.verify().findings == ()
        (pip_made.env / "share/doc.txt").write_text("dog")
        assert brief(pip_made.verify()) == [("changed", "share/doc.txt", "greet")]

    def test_other_hashes(self, pip_made: Place) -> None:
        """Any that Python knows; others cannot be verified, which is said."""
        record = pip_made.env / self.DIST_INFO / "RECORD"
        module = self.module(pip_made)
        content, path = module.read_bytes(), f"greet/{module.name}"
        for algorithm in ("sha512", "blake2b", "sha1"):
            lines = [line for line in record.read_text().splitlines() if not line.startswith(path + ",")]
            record.write_text("\n".join([*lines, ",".join(row(path, content, algorithm))]) + "\n")
            assert pip_made.verify().findings == ()
            change(module, flip)
            assert pip_made.verify().damaged == {"greet"}
            change(module, flip)
        for algorithm in ("sha255", "shake_128", ""):
            record.write_text("\n".join([*lines, f"{path},{algorithm}=abc,{len(content)}"]) + "\n")
            detail = f"RECORD has a hash of an unknown kind for it: {algorithm}"
            assert pip_made.verify().findings == (Finding("changed", f"{SITE}/{path}", "greet", detail),)

    def test_directories_in_record(self, pip_made: Place) -> None:
        """Some wheels list their directories, and uv takes that over."""
        (pip_made.site / "greet/empty").mkdir()
        with (pip_made.env / self.DIST_INFO / "RECORD").open("a") as record:
            record.write("greet/,,\r\ngreet/empty/,,\r\n")
        assert pip_made.verify().findings == ()

    def test_very_long_paths(self, pip_made: Place) -> None:
        """What no filesystem can have is damage like any other."""
        with (pip_made.env / self.DIST_INFO / "RECORD").open("a") as record:
            record.write("a/" * 5000 + "b,,\r\n" + "c" * 5000 + ",,\r\n")
        assert pip_made.verify().damaged == {"greet"}

    def test_shared_with_ours(self, pip_made: Place, tmp_path: Path) -> None:
        """Whoever came last has won: the content of either will do."""
        _, beta = wheels_in(tmp_path)
        omega = build_wheel(tmp_path, "omega", files={"shared/common.py": "owner = 'omega'\n"})
        run(pip_made.env / core.PYTHON, "-m", "pip", "install", "--no-index", "-q", omega)
        shutil.rmtree(pip_made.site / "greet-1.0.dist-info")
        lock = tmp_path / "requirements.txt"
        lock.write_text(f"beta @ file://{beta} --hash=sha256:{sha256_of(beta)}\n")
        envsync.sync(lock, env=pip_made.env, cache_dir=pip_made.cache, exact=False)
        common = pip_made.site / "shared/common.py"
        assert pip_made.verify().damaged == set()
        for owner in ("beta", "omega", "alpha"):
            common.unlink()
            common.write_text(f"owner = '{owner}'\n")
            assert pip_made.verify().damaged == ({"omega"} if owner == "alpha" else set())


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the paths that are opened or listed from now on."""
    seen: list[str] = []
    original, scandir = core.open_file, os.scandir

    def note(path: str, *rest: int, **options: int) -> int:
        seen.append(path)
        return original(path, *rest, **options)

    def note_directory(path: str) -> object:
        seen.append(path)
        return scandir(path)

    monkeypatch.setattr(core, "open_file", note)
    monkeypatch.setattr(os, "scandir", note_directory)
    return seen


class TestUnowned:
    """What nobody has is named, and is no damage."""

    @pytest.mark.parametrize(
        "path",
        [
            f"{SITE}/foreign.py",
            f"{SITE}/alpha/foreign.py",
            f"{SITE}/shared/inner.txt",
            f"{ALPHA}/extra.json",
            "bin/foreign",
            "bin/python-argcomplete",
            "bin/pythonw",
        ],
    )
    def test_file(self, place: Place, path: str) -> None:
        (place.env / path).write_text("foreign")
        report = place.verify()
        assert brief(report) == [("unowned", path, "")]
        assert report.is_sound
        assert report.damaged == set()

    def test_directory(self, place: Place) -> None:
        """It is named once, with how much is in it."""
        (place.site / "foreign/deep").mkdir(parents=True)
        (place.site / "foreign/a.py").touch()
        (place.site / "foreign/deep/b.py").touch()
        detail = "a directory with 2 files that nobody has installed"
        assert place.verify().findings == (Finding("unowned", f"{SITE}/foreign", "", detail),)

    @pytest.mark.parametrize("path", [f"{SITE}/numpy", f"{SITE}/alpha/empty", "bin/empty"])
    def test_empty_directory(self, place: Place, path: str) -> None:
        """It can be imported."""
        (place.env / path).mkdir()
        assert place.verify().findings == (Finding("unowned", path, "", "an empty directory"),)

    def test_link(self, place: Place, tmp_path: Path) -> None:
        """It is not followed."""
        (place.site / "checkout").symlink_to(tmp_path)
        detail = "a symbolic link that nobody has installed"
        assert place.verify().findings == (Finding("unowned", f"{SITE}/checkout", "", detail),)

    def test_bytecode(self, place: Place) -> None:
        """It belongs to its source; without one, it is nobody's."""
        for path in ("alpha/__pycache__/__init__.cpython-311.pyc", "__pycache__/alpha_single.cpython-311.pyc"):
            (place.site / path).parent.mkdir(exist_ok=True)
            (place.site / path).touch()
        (place.site / "alpha/__pycache__/plat.f-12.py311.nbi").touch()
        (place.site / "alpha/__pycache__/plat.cpython-311-pytest-8.4.2.pyc.123").touch()
        assert place.verify().findings == ()
        (place.site / "alpha/__pycache__/gone.cpython-311.pyc").touch()
        (place.site / "mine.py").touch()
        (place.site / "__pycache__/mine.cpython-311.pyc").touch()
        assert brief(place.verify()) == [
            ("unowned", f"{SITE}/alpha/__pycache__/gone.cpython-311.pyc", ""),
            ("unowned", f"{SITE}/mine.py", ""),
        ]

    def test_elsewhere(self, place: Place) -> None:
        """Beside site-packages and bin, an environment is the user's."""
        (place.env / "notes.txt").touch()
        (place.env / "share/mine").mkdir()
        assert place.verify().findings == ()

    def test_moved_aside_by_pip(self, place: Place) -> None:
        """A killed pip leaves what it was about to remove, with a tilde for the first letter."""
        shutil.copytree(place.env / BETA, place.site / "~eta-1.0.dist-info")
        shutil.copytree(place.site / "beta", place.site / "~eta")
        report = place.verify()
        paths = [f"{SITE}/~eta", f"{SITE}/~eta-1.0.dist-info"]
        assert brief(report) == [("left over", path, "") for path in paths]
        assert not report.is_sound

    def test_left_over(self, place: Place) -> None:
        """What the caller found, too."""
        stage = place.site / ".envsync/dead/new"
        stage.mkdir(parents=True)
        (place.env / ".envsync/stamp.12.tmp").touch()
        report = place.verify(leftovers=[*leftovers.find(place.environment), place.environment.journal])
        kinds = {finding.path: finding.kind for finding in report.findings}
        assert kinds[f"{SITE}/.envsync/dead"] == kinds[".envsync/journal"] == "left over"
        assert not report.is_sound
        assert report.damaged == set()

    def test_unlistable(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        original = os.scandir

        def fail(path: str) -> object:
            if str(path).endswith("/alpha"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return original(path)

        monkeypatch.setattr(os, "scandir", fail)
        detail = "it cannot be listed: Input/output error"
        assert place.verify().findings == (Finding("changed", f"{SITE}/alpha", "", detail),)


class TestSkeleton:
    """What `venv` made."""

    def test_python_gone(self, place: Place) -> None:
        (place.env / "bin/python").unlink()
        report = place.verify()
        assert brief(report) == [("missing", "bin/python", "")]
        assert not report.is_sound
        assert report.damaged == set()

    def test_python_dangling(self, place: Place) -> None:
        (place.env / "bin/python").unlink()
        (place.env / "bin/python").symlink_to("/nowhere/python")
        detail = "the Python that it links to is gone: `/nowhere/python`"
        assert place.verify().findings == (Finding("missing", "bin/python", "", detail),)

    def test_python_is_something_else(self, place: Place) -> None:
        (place.env / "bin/python").unlink()
        (place.env / "bin/python").mkdir()
        assert place.verify().findings == (Finding("changed", "bin/python", "", "it is a directory"),)
        (place.env / "bin/python").rmdir()
        (place.env / "bin/python").touch(0o644)
        assert place.verify().findings == (Finding("changed", "bin/python", "", "it cannot be executed"),)

    def test_config(self, place: Place) -> None:
        config = place.env / "pyvenv.cfg"
        config.write_text("")
        assert brief(place.verify()) == [("changed", "pyvenv.cfg", "")]
        config.unlink()
        assert brief(place.verify()) == [("missing", "pyvenv.cfg", "")]
        config.symlink_to("nowhere")
        assert brief(place.verify()) == [("changed", "pyvenv.cfg", "")]

    def test_bin_gone(self, place: Place) -> None:
        shutil.rmtree(place.env / "bin")
        report = place.verify()
        assert {finding.kind for finding in report.findings} == {"missing"}
        assert report.damaged == {"alpha"}

    def test_no_environment(self, tmp_path: Path) -> None:
        """What cannot be listed is the one thing that raises."""
        (tmp_path / "file").touch()
        for name in ("nothing", "file"):
            with pytest.raises(FilesystemError, match="cannot list"):
                Place(tmp_path / name, tmp_path / "cache").verify()

    def test_empty_directory(self, tmp_path: Path) -> None:
        report = Place(tmp_path, tmp_path / "cache").verify()
        assert [finding[:2] for finding in report.findings] == [
            ("missing", "bin/python"),
            ("missing", SITE),
            ("missing", "pyvenv.cfg"),
        ]


class TestWork:
    """How it goes about it."""

    @pytest.mark.parametrize("workers", [None, 1, 2, 50])
    def test_workers(self, place: Place, workers: int | None) -> None:
        """However many there are, they find the same."""
        change(place.site / "alpha/_native.so", flip)
        report = place.verify(workers=workers)
        assert brief(report) == [("changed", f"{SITE}/alpha/_native.so", "alpha")]

    def test_report(self, made: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """It says how far it is, and ends with all of it."""
        monkeypatch.setattr(compare, "TELL_FILES", 1)
        said: list[tuple[str, int, int, int, int]] = []

        def note(phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
            said.append((phase, done, total, bytes_done, bytes_total))

        done = made.verify(report=note, workers=1)
        assert said[-1] == ("verifying", done.files, done.files, done.bytes, said[-1][4])
        assert [item[1] for item in said[: done.files]] == [*range(1, done.files + 1)]

    def test_large_files(self, tmp_path: Path) -> None:
        """A file is read in pieces; a change in the last is found."""
        place = Place(tmp_path / "env", tmp_path / "cache")
        content = os.urandom(compare.CHUNK_BYTES * 2 + 1)
        place.sync(build_wheel(tmp_path, "demo", files={"demo.bin": content}))
        assert place.verify().findings == ()
        change(place.site / "demo.bin", flip, keep_time=True)
        assert brief(place.verify()) == [("changed", f"{SITE}/demo.bin", "demo")]

    def test_interrupted(self, made: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C ends all threads."""

        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(verify._Search, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            made.verify(workers=4)

    def test_worker_fails(self, made: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """What goes wrong in a thread is raised here."""

        def fail(*_: object) -> str:
            raise MemoryError

        monkeypatch.setattr(compare._Reader, "_compare", fail)
        with pytest.raises(MemoryError):
            made.verify(workers=4)

    def test_relative_environment(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(place.env.parent)
        near = Place(Path("env"), place.cache)
        (place.site / "alpha_single.py").unlink()
        assert brief(near.verify()) == [("missing", f"{SITE}/alpha_single.py", "alpha")]

    def test_nothing_is_changed(self, place: Place) -> None:
        def look() -> dict[str, tuple[int, int]]:
            paths = [place.env, *place.env.rglob("*")]
            return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns) for path in paths}

        before = look()
        place.verify()
        assert look() == before


# Any damage at all


class Mutable(NamedTuple):
    """An environment that examples damage and repair."""

    place: Place
    owners: dict[str, str]
    """Every file of it that counts, and the distribution that is to be named."""


@pytest.fixture(scope="module")
def ours(made: Place, tmp_path_factory: pytest.TempPathFactory) -> Mutable:
    """What envsync made: all files."""
    root = tmp_path_factory.mktemp("ours")
    shutil.copytree(made.env, root / "env", symlinks=True)
    place = Place(root / "env", made.cache)
    owners = {}
    for name, dist_info in (("alpha", ALPHA), ("beta", BETA)):  # of a shared file the last one
        for line in csv.reader((place.env / dist_info / "RECORD").read_text().splitlines()):
            owners[os.path.normpath(f"{SITE}/{line[0]}")] = name
    return Mutable(place, owners)


@pytest.fixture(scope="module")
def theirs(piped: Place, tmp_path_factory: pytest.TempPathFactory) -> Mutable:
    """What pip installed: all files of which RECORD has a hash. Without pip itself, which is large."""
    root = tmp_path_factory.mktemp("theirs")
    place = Place(root / "env", piped.cache)
    seeds = ("pip*", "setuptools*", "pkg_resources", "*distutils*")
    shutil.copytree(piped.env, place.env, symlinks=True, ignore=shutil.ignore_patterns(*seeds))
    lines = csv.reader((place.site / "greet-1.0.dist-info/RECORD").read_text().splitlines())
    return Mutable(place, {os.path.normpath(f"{SITE}/{line[0]}"): "greet" for line in lines if line[1]})


class Damage(NamedTuple):
    """Something that happens to one file."""

    which: int
    how: str
    position: int
    value: int

    def edit(self, content: bytes) -> bytes:
        """Return other content."""
        start = self.position % max(1, len(content))
        if self.how == "insert" or not content:
            return content[:start] + bytes([self.value]) + content[start:]
        if self.how == "truncate":
            return content[:start]
        return content[:start] + bytes([content[start] ^ self.value]) + content[start + 1 :]


damages = st.builds(
    Damage,
    st.integers(0, 1000),
    st.sampled_from(["flip", "remove", "truncate", "insert"]),
    st.integers(0, 20_000),
    st.integers(1, 255),
)


@settings(max_examples=2 * settings.default.max_examples)  # type: ignore[union-attr]
@given(damages)
def test_any_damage_is_found(ours: Mutable, damage: Damage) -> None:
    """A byte changed, inserted or cut off anywhere, or a file removed, names that distribution alone."""
    check_damage(ours, damage)


@given(damages)
def test_any_damage_of_others_is_found(theirs: Mutable, damage: Damage) -> None:
    """So it does in what pip installed, wherever RECORD has a hash."""
    check_damage(theirs, damage)


def check_damage(mutable: Mutable, damage: Damage) -> None:
    """Do it, verify, undo it. The file keeps its time, so that nothing but what is in it can tell."""
    place, owners = mutable
    path = sorted(owners)[damage.which % len(owners)]
    full = place.env / path
    content, status = full.read_bytes(), full.stat()
    try:
        if damage.how == "remove":
            full.unlink()
        else:
            change(full, damage.edit, keep_time=True)
        report = place.verify(workers=1)
        assert report.damaged == {owners[path]}
        if not path.endswith("/RECORD"):
            kind = "missing" if damage.how == "remove" else "changed"
            assert brief(report) == [(kind, path, owners[path])]
    finally:
        full.unlink(missing_ok=True)
        full.write_bytes(content)
        full.chmod(status.st_mode)
        os.utime(full, ns=(status.st_atime_ns, status.st_mtime_ns))
