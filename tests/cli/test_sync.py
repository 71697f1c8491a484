"""What a person types and sees: `envsync sync`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES, files, leftovers, site_packages, unowned, unverified
from tests.wheels import build_wheel

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LOCK = str(FIXTURES / "pylock.toml")
NEXT = str(FIXTURES / "pylock.next.toml")


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def test_json_says_what_changed(run_envsync: Run, tmp_path: Path) -> None:
    """One object with the promised keys, and nothing else on stdout."""
    value = outcome(run_envsync("sync", "--lock", LOCK, "--env", "env", "--json"))
    assert set(value) >= {"outcome", "env", "digest", "installed", "removed", "seconds"}
    assert value["outcome"] == "synced"
    assert value["env"] == str(tmp_path / "env")
    assert value["installed"] == ["almanac-days==1.0", "almanac-words==1.0", "greet==1.0", "shout==1.0", "tally==1.0"]
    again = outcome(run_envsync("sync", "--lock", LOCK, "--env", "env", "--json"))
    assert (again["outcome"], again["installed"], again["removed"]) == ("current", [], [])
    changed = outcome(run_envsync("sync", "--lock", NEXT, "--env", "env", "--json"))
    assert changed["installed"] == ["greet==2.0"]
    assert changed["removed"] == ["almanac-words==1.0", "greet==1.0"]


def test_a_dry_run_changes_nothing(run_envsync: Run, tmp_path: Path) -> None:
    """It says what a sync would do, and leaves not even the environment's directory."""
    value = outcome(run_envsync("sync", "--lock", LOCK, "--env", "env", "--dry-run", "--json"))
    assert (value["outcome"], value["dry_run"]) == ("would sync", True)
    assert len(list(value["installed"])) == 5  # type: ignore[call-overload]
    assert not (tmp_path / "env").exists()
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    before = files(tmp_path / "env")
    done = run_envsync("sync", "--lock", NEXT, "--env", "env", "--dry-run")
    assert "would remove greet==1.0" in done.stderr
    assert "would install greet==2.0" in done.stderr
    assert files(tmp_path / "env") == before
    again = outcome(run_envsync("sync", "--lock", LOCK, "--env", "env", "--dry-run", "--json"))
    assert (again["outcome"], again["dry_run"]) == ("current", True)
    assert outcome(run_envsync("sync", "--lock", LOCK, "--env", "env", "--json"))["dry_run"] is False


def test_what_is_installed_is_standard(run_envsync: Run, tmp_path: Path) -> None:
    """INSTALLER, REQUESTED and RECORD are there, and every file verifies."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    env = tmp_path / "env"
    dist_info = site_packages(env) / "greet-1.0.dist-info"
    assert (dist_info / "INSTALLER").read_text() == "envsync\n"
    assert (dist_info / "REQUESTED").read_text() == ""
    assert unverified(env) == []
    assert unowned(env) == set()
    assert leftovers(env) == []


def test_there_and_back_leaves_no_file_that_the_target_does_not_name(run_envsync: Run, tmp_path: Path) -> None:
    """An environment is what its lock file says, wherever it came from."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    first = files(tmp_path / "env")
    run_envsync("run", "--lock", NEXT, "--env", "env", "--", "greet")
    assert unowned(tmp_path / "env") == set()
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    assert files(tmp_path / "env") == first
    assert unverified(tmp_path / "env") == []


def test_requirements_with_a_wheelhouse_need_no_network(run_envsync: Run) -> None:
    """Pinned requirements, `--no-index` and `--find-links` are enough on a node without a network."""
    requirements = str(FIXTURES / "requirements.txt")
    value = outcome(run_envsync("sync", "--lock", requirements, "--env", "env", "--offline", "--json"))
    assert len(list(value["installed"])) == 5  # type: ignore[call-overload]
    assert outcome(run_envsync("sync", "--lock", requirements, "--env", "env", "--json"))["outcome"] == "current"


def test_a_local_wheel_without_a_hash_is_watched(run_envsync: Run, tmp_path: Path) -> None:
    """Nothing but its size and mtime vouch for it, so a rebuilt wheel of the same version is installed anew."""
    wheel = tmp_path / "greet-1.0-py3-none-any.whl"
    shutil.copy(FIXTURES / "wheels" / "greet-1.0-py3-none-any.whl", wheel)
    (tmp_path / "requirements.txt").write_text("greet @ ./greet-1.0-py3-none-any.whl\n")
    (tmp_path / "requirements.txt").write_text(f"./{wheel.name}\n")
    assert outcome(run_envsync("sync", "--env", "env", "--json"))["outcome"] == "synced"
    assert outcome(run_envsync("sync", "--env", "env", "--json"))["outcome"] == "current"
    direct_url = json.loads((site_packages(tmp_path / "env") / "greet-1.0.dist-info" / "direct_url.json").read_text())
    assert direct_url["url"] == wheel.as_uri()
    wheel.touch()
    assert outcome(run_envsync("sync", "--env", "env", "--json"))["outcome"] == "current"


def test_a_wheel_with_another_hash_is_refused_before_anything_is_changed(run_envsync: Run, tmp_path: Path) -> None:
    """The message names the wheel and both hashes; the environment is as it was and still runs."""
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    lock = tmp_path / "pylock.toml"
    shutil.copy(LOCK, lock)
    run_envsync("sync", "--env", "env")
    wheel = tmp_path / "wheels" / "greet-2.0-py3-none-any.whl"
    good = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text((FIXTURES / "pylock.next.toml").read_text().replace(good, "0" * 64))
    done = run_envsync("sync", "--env", "env")
    assert done.returncode == 125
    assert wheel.name in done.stderr
    assert "0" * 64 in done.stderr
    assert good in done.stderr
    assert run_envsync("run", "--lock", LOCK, "--env", "env", "--", "greet").stdout == "HELLO, WORLD!\n"
    assert leftovers(tmp_path / "env") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lock-version = ", "pylock.toml"),
        ('lock-version = "9.0"\ncreated-by = "x"\npackages = []\n', "9.0"),
        ('lock-version = "1.0"\ncreated-by = "x"\nrequires-python = "<3"\npackages = []\n', "<3"),
    ],
)
def test_a_bad_lock_file_is_named(run_envsync: Run, tmp_path: Path, text: str, said: str) -> None:
    """The file and what is wrong with it."""
    (tmp_path / "pylock.toml").write_text(text)
    done = run_envsync("sync")
    assert done.returncode == 125
    assert "pylock.toml" in done.stderr
    assert said in done.stderr


def test_usage_errors_exit_2(run_envsync: Run) -> None:
    """As most commands do; only `run` reserves other numbers."""
    assert run_envsync("sync", "--unheard-of").returncode == 2
    assert run_envsync("sync", "--timeout", "soon").returncode == 2
    assert run_envsync("unheard-of").returncode == 2
    assert run_envsync("--help").returncode == 0
    assert "envsync 0" in run_envsync("--version").stdout


def test_inexact_leaves_what_the_lock_file_does_not_name(run_envsync: Run, tmp_path: Path) -> None:
    """With --inexact, a sync only adds."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    value = outcome(run_envsync("sync", "--lock", NEXT, "--env", "env", "--inexact", "--json"))
    assert value["removed"] == ["greet==1.0"]
    assert (site_packages(tmp_path / "env") / "almanac_words-1.0.dist-info").is_dir()


@pytest.mark.parametrize("mode", ["auto", "copy", "hardlink", "clone"])
def test_link_modes(run_envsync: Run, tmp_path: Path, mode: str) -> None:
    """Files are linked from the store, cloned or copied; whatever can be had instead of what was asked for will do."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", "--link-mode", mode)
    module = site_packages(tmp_path / "env") / "shout.py"
    assert mode == "auto" or (module.stat().st_nlink > 1) is (mode == "hardlink")
    assert unverified(tmp_path / "env") == []
    assert run_envsync("sync", "--lock", LOCK, "--env", "env").stderr.endswith("is current\n")


def test_a_file_named_like_our_lock_may_be_elsewhere(run_envsync: Run, tmp_path: Path) -> None:
    """The name `.lock` is taken at the top of the environment only."""
    site = f"data/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    wheel = build_wheel(tmp_path, data={f"{place}/.lock": "" for place in ("data/bin", "data/share", site)})
    (tmp_path / "requirements.txt").write_text(f"{wheel}\n")
    done = run_envsync("sync", "--lock", "requirements.txt", "--env", "env", "--cache-dir", "cache")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "env" / "bin" / ".lock").is_file()
    assert (site_packages(tmp_path / "env") / ".lock").is_file()
    assert unverified(tmp_path / "env") == []


def test_a_damaged_store_entry_is_set_aside_and_fetched_again(run_envsync: Run, tmp_path: Path) -> None:
    """A write through a hard link that modes did not stop is found out before the next link."""
    run_envsync("sync", "--lock", LOCK, "--env", "env")
    module = site_packages(tmp_path / "env") / "shout.py"
    module.chmod(0o644)
    module.write_text(module.read_text() + "evil = True\n")
    done = run_envsync("sync", "--lock", LOCK, "--env", "other")
    assert done.returncode == 0
    assert "set aside" in done.stderr
    assert unverified(tmp_path / "other") == []


@pytest.mark.parametrize("mode", ["hardlink", "copy", "symlink"])
def test_a_cache_that_was_copied_without_times_is_fetched_again_at_once(
    run_envsync: Run, tmp_path: Path, mode: str
) -> None:
    """`cp -r` makes all entries differ, more of them than a plan is made again: it is one note, and one new stage."""
    wheels = [build_wheel(tmp_path, f"w{number}", "1.0", {f"w{number}/__init__.py": "x = 1\n"}) for number in range(8)]
    lock = tmp_path / "requirements.txt"
    lock.write_text("".join(f"{path}\n" for path in wheels))
    assert run_envsync("sync", "--lock", str(lock), "--env", "env", "--cache-dir", "cache").returncode == 0
    subprocess.run(["cp", "-r", "cache", "copied"], cwd=tmp_path, check=True)
    done = run_envsync("sync", "--lock", str(lock), "--env", "new", "--cache-dir", "copied", "--link-mode", mode)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if "note:" in line]
    assert len(notes) == 1
    assert "and so have those of 7 other wheels; they were set aside and fetched again" in notes[0]
    assert unverified(tmp_path / "new") == []
    again = run_envsync("sync", "--lock", str(lock), "--env", "third", "--cache-dir", "copied", "--link-mode", mode)
    assert "note:" not in again.stderr


def test_two_damaged_wheels_are_one_and_one_other(run_envsync: Run, tmp_path: Path) -> None:
    """The note is a sentence for two as well."""
    wheels = [build_wheel(tmp_path, f"w{number}", "1.0", {f"w{number}/__init__.py": "x = 1\n"}) for number in range(2)]
    lock = tmp_path / "requirements.txt"
    lock.write_text("".join(f"{path}\n" for path in wheels))
    assert run_envsync("sync", "--lock", str(lock), "--env", "env", "--cache-dir", "cache").returncode == 0
    subprocess.run(["cp", "-r", "cache", "copied"], cwd=tmp_path, check=True)
    done = run_envsync("sync", "--lock", str(lock), "--env", "new", "--cache-dir", "copied")
    assert "and so have those of one other wheel; they were set aside and fetched again" in done.stderr


def test_damaged_record_lines_are_as_good_as_damaged_files(run_envsync: Run, tmp_path: Path) -> None:
    """They are most of a manifest and read only where they are needed: the wheel is then fetched again."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", "--cache-dir", "cache")
    for path in (tmp_path / "cache" / "v1" / "wheels").glob("*/manifest.json"):
        status, (head, checksum, record) = path.stat(), path.read_bytes().split(b"\n")
        path.chmod(0o644)
        path.write_bytes(b"\n".join((head, checksum, record.replace(b"sha256=", b"sha256:"))))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = run_envsync("sync", "--lock", LOCK, "--env", "new", "--cache-dir", "cache", "-v")
    assert done.returncode == 0, done.stderr
    assert "the checksum of the RECORD lines in it does not match" in done.stderr
    assert unverified(tmp_path / "new") == []


def test_files_that_python_reads_at_every_start_are_named_on_request(run_envsync: Run, tmp_path: Path) -> None:
    """A `.pth` file is allowed, as by pip; with `-v` it is said that there is one."""
    files = {"late.pth": "import late\n", "late.py": "x = 1\n"}
    wheel = build_wheel(tmp_path, "late", "1.0", files)
    lock = tmp_path / "pylock.toml"
    digest = hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    lock.write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n[[packages]]\nname = "late"\nversion = "1.0"\n'
        f'wheels = [{{ path = "{Path(wheel).name}", hashes = {{ sha256 = "{digest}" }} }}]\n'
    )
    said = "late==1.0 has `late.pth`"
    assert said in run_envsync("sync", "-v", "--env", "one").stderr
    assert said not in run_envsync("sync", "--env", "two").stderr


def pip_installs(env: Path, name: str, tool: str | None = "pip") -> None:
    """Put a distribution where pip would."""
    info = site_packages(env) / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{info.name}/RECORD,,\n{info.name}/INSTALLER,,\n")
    if tool is not None:
        (info / "INSTALLER").write_text(f"{tool}\n")


@pytest.mark.parametrize("words", [["sync"], ["run", "true"]])
def test_what_is_removed_is_named(run_envsync: Run, tmp_path: Path, words: list[str]) -> None:
    """With who had installed it, if that was another tool; what others had installed comes first."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    pip_installs(tmp_path / "env", "byhand")
    pip_installs(tmp_path / "env", "byuv", "uv")
    pip_installs(tmp_path / "env", "unknown", None)
    done = run_envsync(words[0], "--lock", NEXT, "--env", "env", *words[1:], check=True)
    (line,) = [line for line in done.stderr.splitlines() if "removed byhand" in line]
    assert line == (
        "envsync: removed byhand==1.0 (installed by pip), byuv==1.0 (installed by uv), "
        "unknown==1.0 (installed by somebody), almanac-words==1.0, greet==1.0 (now 2.0)"
    )


def test_very_many_that_are_removed_are_counted(run_envsync: Run, tmp_path: Path) -> None:
    """Ten names and a number; with `-v`, all of them; with `-q`, nothing."""
    run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    for number in range(12):
        pip_installs(tmp_path / "env", f"p{number:02}")
    done = run_envsync("sync", "--lock", LOCK, "--env", "env", check=True)
    assert "p09==1.0 (installed by pip) and 2 more" in done.stderr
    pip_installs(tmp_path / "env", "again")
    done = run_envsync("sync", "-v", "--lock", LOCK, "--env", "env", check=True)
    assert "envsync: - again==1.0 (installed by pip)" in done.stderr
    pip_installs(tmp_path / "env", "again")
    assert run_envsync("sync", "-q", "--lock", LOCK, "--env", "env", check=True).stderr == ""


def test_what_requirements_lack_is_said_once(run_envsync: Run, tmp_path: Path) -> None:
    """When something is installed, by the METADATA of what was; it is no failure, and no launch says it again."""
    metadata = (
        "Metadata-Version: 2.1\nName: needs\nVersion: 1.0\n"
        "Requires-Dist: absentee >=1\nRequires-Dist: other-one ; extra == 'more'\n"
        "Requires-Dist: never ; extra == 'unwanted'\nRequires-Dist: windows ; sys_platform == 'win32'\n"
        "\nRequires-Dist: is-text\n"
    )
    wheel = Path(build_wheel(tmp_path, "needs", "1.0", {"needs.py": ""}, metadata=metadata))
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"./{wheel.name}\n")
    done = run_envsync("sync", check=True)
    (note,) = [line for line in done.stderr.splitlines() if "lacks what" in line]
    assert note == (
        "envsync: note: `requirements.txt` lacks what its packages require: `absentee` (of needs); pin all of it with "
        "`uv pip compile --generate-hashes --output-file requirements.lock.txt requirements.txt`, and name "
        "`requirements.lock.txt` with --lock"
    )
    for again in (run_envsync("sync", check=True), run_envsync("run", "true", check=True)):
        assert "absentee" not in again.stderr
    lock.write_text(f"needs[more] @ {wheel.as_uri()}\n")
    assert "`absentee` (of needs), `other-one` (of needs)" in run_envsync("sync", "--env", "other", check=True).stderr
