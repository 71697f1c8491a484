"""Filesystems that take names for one that differ by case or Unicode form only, as those of Windows and macOS do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, envsync_command
from tests.environments import site_packages, unverified
from tests.filesystems import mounted
from tests.wheels import build_wheel, sha256_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]


MODES = ["preserving", "decomposing"]
"""Of foldfs.py: as APFS and HFS+ are."""


@contextmanager
def folded(mode: str, directory: Path) -> Iterator[Path]:
    """Mount foldfs.py, or skip the test with the reason why it cannot be."""
    place, below = directory / "folded", directory / "below"
    place.mkdir()
    below.mkdir()
    words = [sys.executable, "-m", "tests.odd.foldfs", mode, below, place]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not place.is_mount():
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.skip(f"cannot mount foldfs: {process.stderr.read().splitlines()[-1]}")
            time.sleep(0.02)
        try:
            yield place
        finally:
            subprocess.run(["fusermount3", "-u", place], check=True)


@pytest.fixture
def folding(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Mount a filesystem that does not tell case apart."""
    with mounted("ntfs", tmp_path, 60 << 20) if request.param == "ntfs" else folded(request.param, tmp_path) as place:
        (place / "a").touch()
        assert (place / "A").exists()
        (place / "a").unlink()
        yield place


@pytest.fixture
def lock(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a lock file with the wheel that the test is about."""
    path = tmp_path / "requirements.txt"
    wheel = build_wheel(tmp_path, "demo", "1.0", **WHEELS[request.param])
    path.write_text(f"demo @ {Path(wheel).as_uri()} --hash=sha256:{sha256_of(wheel)}\n")
    return path


ACUTE, DECOMPOSED = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"
WHEELS: dict[str, dict[str, object]] = {
    "files": {"files": {"demo/xt_MARK.h": "a", "demo/xt_mark.h": "b"}},
    "directories": {"files": {"demo/x/a.py": "a", "demo/X/b.py": "b"}},
    "file and directory": {"files": {"demo/x": "a", "demo/X/b.py": "b"}},
    "scripts": {"entry_points": {"console_scripts": {"demo": "demo:f", "Demo": "demo:f"}}},
    "headers": {"data": {"headers/a.h": "a", "headers/A.h": "b"}},
    "purelib and platlib": {"files": {"demo/a.py": "a"}, "data": {"platlib/demo/A.py": "b"}},
}
FORMS: dict[str, dict[str, object]] = {
    "forms": {"files": {f"demo/{ACUTE}.h": "a", f"demo/{DECOMPOSED}.h": "b"}},
    "forms of a directory": {"files": {f"demo/{ACUTE}/a.py": "a", f"demo/{DECOMPOSED}/b.py": "b"}},
    "another letter": {"files": {"demo/straße": "a", "demo/STRASSE": "b"}},
}
"""Names of which ntfs-3g makes two files."""
WHEELS |= FORMS
every = pytest.mark.parametrize(
    ("folding", "lock"),
    [
        *(("ntfs", name) for name in WHEELS if name not in FORMS),
        *(("preserving", name) for name in WHEELS),
        *(("decomposing", name) for name in FORMS),
    ],
    indirect=True,
)
files_only = pytest.mark.parametrize(
    ("folding", "lock"), [("ntfs", "files"), *((mode, "forms") for mode in MODES)], indirect=True
)
as_on_macos = pytest.mark.parametrize("folding", MODES, indirect=True)


def refusal(done: subprocess.CompletedProcess[str], whose: str, option: str) -> None:
    assert done.returncode == 125
    assert re.search(rf"it has `.*` and `.*`, which are one file on the filesystem of the {whose}\n", done.stderr)
    assert re.search(rf"^hint: .* `envsync sync .*{option} '?/var/tmp/", done.stderr, re.MULTILINE)


@every
def test_the_filesystem_of_the_environment_is_asked(
    run_envsync: Run, tmp_path: Path, folding: Path, lock: Path
) -> None:
    """What would be one file there is refused before anything is installed; elsewhere the same entry serves."""
    cache = ("--cache-dir", tmp_path / "cache")
    refusal(run_envsync("sync", "--lock", lock, "--env", folding / "env", *cache), "environment", "--env")
    # Locks that are open when they are removed have FUSE keep the directory, and what says that it is to go.
    assert {path.name for path in (folding / "env").rglob("*") if path.parent.name != "bare"} <= {".envsync", "bare"}
    assert run_envsync("sync", "--lock", lock, "--env", "env", *cache).returncode == 0
    assert unverified(tmp_path / "env") == []


@files_only
def test_an_environment_there_is_left_as_it_was(run_envsync: Run, tmp_path: Path, folding: Path, lock: Path) -> None:
    """It is asked before anything is taken away, also where the environment would have to be made anew."""
    sound = tmp_path / "sound.txt"
    sound.write_text(f"other @ {Path(build_wheel(tmp_path, 'other', '1.0')).as_uri()}\n")
    words = ("--env", folding / "env", "--cache-dir", tmp_path / "cache")
    assert run_envsync("sync", "--lock", sound, *words).returncode == 0
    before = sorted(folding.rglob("*"))
    (folding / "env" / "bin" / "python").unlink()
    refusal(run_envsync("sync", "--lock", lock, *words), "environment", "--env")
    gone = {path for path in before if not os.path.lexists(path)}
    assert gone <= {folding / "env" / "bin" / "python"}


@every
def test_that_of_the_cache_is_asked(run_envsync: Run, tmp_path: Path, folding: Path, lock: Path) -> None:
    """What would be one file in the store is not unpacked there, and nothing of it is left."""
    cache = folding / "cache"
    refusal(run_envsync("sync", "--lock", lock, "--env", "env", "--cache-dir", cache), "cache", "--cache-dir")
    assert os.listdir(cache / "v1" / "wheels") == os.listdir(cache / "v1" / "tmp") == []


@files_only
def test_an_entry_that_was_copied_to_where_two_files_are_one(
    run_envsync: Run, tmp_path: Path, folding: Path, lock: Path
) -> None:
    """Both files have one size and time, so only their names say that one of them is lost: it is never installed."""
    assert run_envsync("sync", "--lock", lock, "--env", "env", "--cache-dir", "cache").returncode == 0
    shutil.copytree(tmp_path / "cache", folding / "cache")
    done = run_envsync("sync", "--lock", lock, "--env", "other", "--cache-dir", folding / "cache")
    refusal(done, "cache", "--cache-dir")
    assert not list((tmp_path / "other").rglob("*.h"))


@pytest.mark.parametrize("lock", ["files"], indirect=True)
def test_where_case_is_told_apart_both_are_installed_and_go(run_envsync: Run, tmp_path: Path, lock: Path) -> None:
    """By every way of linking, with their own contents."""
    for mode in ("hardlink", "copy", "symlink"):
        words = ("sync", "--lock", lock, "--env", f"env-{mode}", "--cache-dir", "cache", "--link-mode", mode)
        assert run_envsync(*words).returncode == 0
        demo = site_packages(tmp_path / f"env-{mode}") / "demo"
        assert [(demo / name).read_text() for name in ("xt_MARK.h", "xt_mark.h")] == ["a", "b"]
        assert unverified(tmp_path / f"env-{mode}") == []


def locked(path: Path, *wheels: str) -> Path:
    lines = [
        f"{Path(each).name.partition('-')[0]} @ {Path(each).as_uri()} --hash=sha256:{sha256_of(each)}\n"
        for each in wheels
    ]
    path.write_text("".join(lines))
    return path


@as_on_macos
def test_an_environment_there_is_as_it_should_be(run_envsync: Run, tmp_path: Path, folding: Path) -> None:
    """Whatever the form of names: nothing is missing or left over, after an upgrade that spells them anew, too."""
    old = {"Demo/__init__.py": "a", f"Demo/{ACUTE}.txt": "b", f"Demo/{DECOMPOSED}_.py": "", "Demo/Straße/x": "c"}
    new = {"demo/__init__.py": "a", f"demo/{DECOMPOSED}.txt": "b", "demo/STRASSE/x": "d"}
    data = {f"data/share/Demo/{ACUTE}": "e"}, {"data/share/demo/x": "f"}
    wheels = [build_wheel(tmp_path, "demo", f"{n}.0", (old, new)[n - 1], data=data[n - 1]) for n in (1, 2)]
    empty = locked(tmp_path / "empty.txt")
    env = folding / "env"
    words = ("--env", env, "--cache-dir", folding / "cache", "--allow-empty")
    for lock in (empty, *(locked(tmp_path / f"{Path(wheel).stem}.txt", wheel) for wheel in wheels), empty):
        done = run_envsync("sync", "--lock", lock, *words)
        assert done.returncode == 0, done.stderr
        assert unverified(env) == []
        done = run_envsync("check", "--lock", lock, *words[:4])
        assert (done.returncode, "unowned" in done.stdout) == (0, False), done.stdout + done.stderr
        done = run_envsync("sync", "--lock", lock, "--env", folding / "ENV", *words[2:])
        assert "is current" in done.stderr
        names = [path.name for path in (*site_packages(env).iterdir(), *env.rglob("share/*"))]
        assert len([name for name in names if name.lower() == "demo"]) == (0 if lock == empty else 2), names


@as_on_macos
def test_two_spellings_of_an_environment_are_one(tmp_path: Path, folding: Path) -> None:
    """Whoever names it in another way waits for the same sync."""
    lock = locked(tmp_path / "lock.txt", build_wheel(tmp_path, "demo", "1.0"))
    command = [*envsync_command(), "run", "--lock", lock, "--cache-dir", folding / "cache"]
    environ = {**os.environ, "ENVSYNC_EVENTS": str(tmp_path / "events")}
    spelled = [folding / name for name in (f"{ACUTE}nv", f"{DECOMPOSED}NV", f"{ACUTE}nV".upper())]
    started = [
        subprocess.Popen([*command, "--env", env, "--", "python", "-c", "import demo"], env=environ)
        for env in spelled * 3
    ]
    assert [process.wait(100) for process in started] == [0] * 9
    events = [json.loads(line)["event"] for line in (tmp_path / "events").read_text().splitlines()]
    assert (events.count("synced"), events.count("launched")) == (1, 9)


def test_a_refused_sync_writes_nothing_through_a_link(run_envsync: Run, tmp_path: Path) -> None:
    """Of two that would share a directory one comes as a link to the cache: nothing of the other gets into that."""
    one = build_wheel(
        tmp_path, "one", "1.0", {"demo/__init__.py": "mine = 1", **{f"demo/g{n}.py": "" for n in range(600)}}
    )
    two = build_wheel(tmp_path, "two", "1.0", {"Demo/x.so": "so", "Demo/__init__.py": "mine = 2"})
    first, both = locked(tmp_path / "first.txt", one), locked(tmp_path / "both.txt", one, two)
    words = ("--cache-dir", tmp_path / "cache", "--link-mode", "symlink")
    assert run_envsync("sync", "--lock", first, "--env", "plain", *words).returncode == 0
    with folded("preserving", tmp_path) as folding:
        done = run_envsync("sync", "--lock", both, "--env", folding / "env", *words)
        assert done.returncode == 125
        assert re.search(PROBLEM, done.stderr)
    assert run_envsync("check", "--lock", first, "--env", "plain", *words[:2]).returncode == 0


def test_what_ntfs_tells_apart_is_two(run_envsync: Run, tmp_path: Path) -> None:
    """It ignores case, but knows no Unicode forms and no letters that are two in capitals."""
    data = ({"data/share/other": "x"}, {"data/share/strasse/x": "x"}, {"data/share/straße/y": "y"})
    wheels = [
        build_wheel(tmp_path, name, "1.0", data=files) for name, files in zip(("zero", "one", "two"), data, strict=True)
    ]
    old, new = (
        build_wheel(tmp_path, "three", f"{n}.0", {"v/__init__.py": "", f"v/{ACUTE}": "", f"v/{DECOMPOSED}": str(n)})
        for n in (1, 2)
    )
    with mounted("ntfs", tmp_path, 60 << 20) as place:
        env = place / "env"
        words = ("--env", env, "--cache-dir", tmp_path / "cache")
        for number, lock in enumerate(([wheels[0], old], [*wheels, old], [*wheels, new], [wheels[0], new])):
            done = run_envsync("sync", "--lock", locked(tmp_path / "lock.txt", *lock), *words)
            assert done.returncode == 0, done.stderr
            assert unverified(env) == []
            share = sorted(path.relative_to(env / "share").as_posix() for path in (env / "share").rglob("*"))
            assert share == (["other"] if number in (0, 3) else ["other", "strasse", "strasse/x", "straße", "straße/y"])
            if number == 0:
                (site_packages(env) / "v" / "strasse").write_text("somebody's")
        assert (site_packages(env) / "v" / "strasse").exists()


@as_on_macos
def test_what_others_installed_keeps_its_files(run_envsync: Run, tmp_path: Path, folding: Path) -> None:
    """pip and uv install two that share a file: who goes leaves it to who stays."""
    one = build_wheel(tmp_path, "one", "1.0", {"ns/__init__.py": "", "ns/one.py": "1"})
    two = build_wheel(tmp_path, "two", "1.0", {"NS/__init__.py": "", "NS/two.py": "2"})
    env, second = folding / "env", locked(tmp_path / "second.txt", two)
    words = ("--lock", second, "--env", env, "--cache-dir", folding / "cache")
    assert run_envsync("sync", *words).returncode == 0
    pip = (sys.executable, "-m", "pip", "--python", env, "install", "-q", "--no-index", "--no-deps", one)
    subprocess.run(pip, check=True)
    done = run_envsync("sync", *words)
    assert done.returncode == 0, done.stderr
    assert "removed one==1.0" in done.stderr
    assert unverified(env) == []
    assert list((env / "lib").rglob("one.py")) == []


@as_on_macos
def test_a_file_and_a_directory_are_refused_in_a_sentence(run_envsync: Run, tmp_path: Path, folding: Path) -> None:
    """As `LICENSE` of the one and `license/` of the other."""
    one = build_wheel(tmp_path, "one", "1.0", {"LICENSE": "a"})
    two = build_wheel(tmp_path, "two", "1.0", {"license/b": "b"})
    both = locked(tmp_path / "both.txt", one, two)
    done = run_envsync("sync", "--lock", both, "--env", folding / "env", "--cache-dir", folding / "cache")
    assert (done.returncode, bool(re.search(PROBLEM, done.stderr))) == (125, True), done.stderr


PROBLEM = r"takes `.*` and `.*` for one, and (both are wanted|the latter stays)|holds files that no distribution owns"
"""The latter where a directory lists the name of the one as that of the other."""
TWO: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "modules": ({"Crypto/a.py": "a"}, {"crypto/b.py": "b"}),
    "files": ({f"demo/{ACUTE}": "a"}, {f"demo/{DECOMPOSED}": "b"}),
}


@as_on_macos
@pytest.mark.parametrize("case", TWO)
@pytest.mark.parametrize("mode", ["copy", "hardlink"])
def test_two_distributions_that_would_share_a_file(
    run_envsync: Run, tmp_path: Path, folding: Path, case: str, mode: str
) -> None:
    """Neither is half installed: it is refused, and what was there stays; elsewhere both are installed."""
    one, two = (
        build_wheel(tmp_path, name, "1.0", files) for name, files in zip(("one", "two"), TWO[case], strict=True)
    )
    both, first = locked(tmp_path / "both.txt", one, two), locked(tmp_path / "first.txt", one)
    env = folding / "env"
    words = ("--cache-dir", folding / "cache", "--link-mode", mode)
    for _ in range(2):
        done = run_envsync("sync", "--lock", both, "--env", env, *words)
        assert done.returncode == 125
        assert re.search(PROBLEM, done.stderr)
        assert re.search(r"^hint: .* `envsync sync .*--env '", done.stderr, re.MULTILINE)
        done = run_envsync("sync", "--lock", first, "--env", env, *words)
        assert done.returncode == 0, done.stderr
        assert unverified(env) == []
        assert run_envsync("check", "--lock", first, "--env", env, *words[:2]).returncode == 0
    elsewhere = tmp_path / "env"
    assert run_envsync("sync", "--lock", both, "--env", elsewhere, "--cache-dir", tmp_path / "cache").returncode == 0
    assert unverified(elsewhere) == []


@as_on_macos
def test_directories_that_are_no_modules_are_shared(run_envsync: Run, tmp_path: Path, folding: Path) -> None:
    """As all distributions share `share`, however they spell it, and each takes its own away again."""
    data = {"one": {"data/share/Man/a": "a"}, "two": {"data/Share/man/b": "b"}}
    one, two = (build_wheel(tmp_path, name, "1.0", data=files) for name, files in data.items())
    env = folding / "env"
    words = ("--env", env, "--cache-dir", folding / "cache")
    both, second = locked(tmp_path / "both.txt", one, two), locked(tmp_path / "second.txt", two)
    for lock, left in ((both, ["a", "b"]), (second, ["b"]), (both, ["a", "b"])):
        done = run_envsync("sync", "--lock", lock, *words)
        assert done.returncode == 0, done.stderr
        assert sorted(os.listdir(env / "share" / "man")) == left
        done = run_envsync("check", "--lock", lock, *words)
        assert (done.returncode, "unowned" in done.stdout) == (0, False), done.stdout
