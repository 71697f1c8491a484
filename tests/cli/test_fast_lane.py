"""What a launch in a current environment costs: counted, not timed."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import envsync
from tests import pythons
from tests.environments import FIXTURES

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SOURCE = Path(envsync.__file__).parent
TALLY = hashlib.sha256((FIXTURES / "wheels/tally-1.0-py3-none-any.whl").read_bytes()).hexdigest()
PINNED = f"tally==1.0 --hash=sha256:{TALLY}"


@pytest.fixture
def launcher(tmp_path: Path) -> Path:
    """The launcher script as pip installs it: beside a Python, with the package in that one's site-packages."""
    root = tmp_path / "installation"
    site = root / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (site / "envsync").symlink_to(SOURCE)
    (root / "bin").mkdir()
    (root / "bin" / "python3").symlink_to(sys.executable)
    shutil.copy(SOURCE / "launcher.sh", root / "bin" / "envsync")
    return root / "bin" / "envsync"


@pytest.fixture
def project(tmp_path: Path, run_envsync: Run) -> Path:
    """A directory with a lock file and its current environment."""
    directory = tmp_path / "project"
    directory.mkdir()
    shutil.copytree(FIXTURES / "wheels", directory / "wheels")
    shutil.copy(FIXTURES / "pylock.toml", directory)
    assert run_envsync("sync", cwd=directory).returncode == 0
    return directory


def traced(words: list[str], cwd: Path, log: Path) -> list[str]:
    """Run a command under strace and return its calls that name a file, and its flocks."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    strace = ["strace", "-f", "-y", "-e", "trace=%file,flock,fcntl", "-o", str(log)]
    done = subprocess.run([*strace, *words], cwd=cwd, capture_output=True, text=True, check=False)
    if "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines()


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("command", ["true", "greet"])
def test_seven_file_operations_and_no_exclusive_lock(
    launcher: Path, project: Path, tmp_path: Path, command: str, explicit: bool
) -> None:
    """In the environment and the project, up to the exec of the command, whether it is in the environment or not."""
    options = ["--lock", str(project / "pylock.toml"), "--env", str(project / ".venv")] if explicit else []
    cwd = tmp_path if explicit else project
    calls = traced([str(launcher), "run", *options, "--", command], cwd, tmp_path / "trace")
    started = next(i for i, call in enumerate(calls) if "execve" in call and "python3" in call)
    became = next(i for i, call in enumerate(calls) if f"bin/{command}" in call and "= 0" in call)
    ours = [call for call in calls[started + 1 : became] if _names_project(call, project, relative=not explicit)]
    operations = [call for call in ours if "execve" not in call and "flock" not in call and "fcntl" not in call]
    assert len(operations) <= 7, "\n".join(operations)
    assert sum("execve" in call for call in ours) <= 1
    locks = [call for call in calls if "flock(" in call]
    assert len(locks) == 1
    assert "LOCK_SH|LOCK_NB" in locks[0]


LOCKS = {
    "nothing": ("", 0),
    "settled by X.Y": ("python_full_version >= '3.9'", 0),
    "kernel": ("platform_release != 'x' and platform_version != 'x'", 0),
    "full version": ("python_full_version <= '{}'", 1),
}


@pytest.mark.parametrize("looks", LOCKS)
def test_what_markers_look_at(launcher: Path, project: Path, run_envsync: Run, tmp_path: Path, looks: str) -> None:
    """A marker that looks at the full version of Python costs one look at the base interpreter, others nothing."""
    marker, expected = LOCKS[looks]
    lock = project / "pylock.toml"
    name = 'name = "greet"\n'
    marker = marker.format(platform.python_version())
    lock.write_text(lock.read_text().replace(name, f'{name}marker = "{marker}"\n') if marker else lock.read_text())
    run_envsync("sync", cwd=project, check=True)
    stamp = (project / ".venv/.envsync/stamp").read_text()
    base = next((line.partition(" ")[2] for line in stamp.splitlines() if line.startswith("base ")), None)
    calls = traced([str(launcher), "run", "--lock", str(lock), "--", "true"], tmp_path, tmp_path / "trace")
    started = next(i for i, call in enumerate(calls) if "execve" in call and "python3" in call)
    became = next(i for i, call in enumerate(calls) if "bin/true" in call and "= 0" in call)
    ours = [call for call in calls[started + 1 : became] if _names_project(call, project, relative=False)]
    assert len([call for call in ours if not re.search("execve|flock|fcntl", call)]) <= 7
    begun = next(i for i, call in enumerate(calls) if ".envsync/in-use" in call)  # before, Python looks for itself
    looked = [call for call in calls[begun:became] if base is not None and f'"{base}"' in call]
    assert len(looked) == expected, "\n".join(calls)


def test_variables_cost_no_file_operation(
    launcher: Path, project: Path, run_envsync: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a requirements file's variables stand for is compared without a look at any further file."""
    counts = []
    for text in ("greet==1.0\n", "greet==${V}\n"):
        lock = project / "requirements.txt"
        lock.write_text(f"--no-index\n--find-links {project}/wheels\n{text}")
        monkeypatch.setenv("V", "1.0")
        run_envsync("sync", "--lock", str(lock), "--env", ".venv", cwd=project, check=True)
        calls = traced([str(launcher), "run", "--lock", str(lock), "--", "true"], tmp_path, tmp_path / "trace")
        became = next(i for i, call in enumerate(calls) if "bin/true" in call and "= 0" in call)
        counts.append(len([call for call in calls[:became] if _names_project(call, project, relative=False)]))
    assert counts[0] == counts[1]


NAMED = {
    "pylock.toml": ("pylock.toml", [], 7),
    "pylock.toml and a Python on PATH": ("pylock.toml", ["--python", "{other}"], 8),
    "requirements": ("requirements.txt", [], 8),
    "requirements that include others": ("including.txt", [], 9),
    "requirements and our own Python": ("requirements.txt", ["--python", "{own}"], 8),
    "requirements and a Python on PATH": ("requirements.txt", ["--python", "{other}"], 8),
}
"""Lock file and options of environments that `{digest}` names → file operations in environment and project."""
OTHER = "3.12" if sys.version_info[1] != 12 else "3.11"


@pytest.mark.parametrize("case", NAMED)
def test_an_environment_named_by_digest(
    launcher: Path, project: Path, run_envsync: Run, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file more tells its name, and each further input is read once; a Python on PATH is looked at, nothing run."""
    name, options, most = NAMED[case]
    other = tmp_path / "other"
    if "{other}" in options:
        other.mkdir()
        (other / f"python{OTHER}").symlink_to(pythons.need(OTHER))
        os.utime(other, (1_700_000_000, 1_700_000_000))
        monkeypatch.setenv("PATH", f"{other}:/usr/bin:/bin")
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    options = [each.format(own=own, other=OTHER) for each in options]
    (project / "more.txt").write_text(f"{PINNED}\n")
    (project / "requirements.txt").write_text(f"--no-index\n--find-links {project}/wheels\n{PINNED}\n")
    (project / "including.txt").write_text(f"--no-index\n--find-links {project}/wheels\n-r more.txt\n")
    words = ["run", "--lock", str(project / name), "--env", str(project / "envs/{digest}"), *options, "--", "true"]
    run_envsync(*words, check=True)
    calls = traced([str(launcher), *words], tmp_path, tmp_path / "trace")
    started = next(i for i, call in enumerate(calls) if "execve" in call and "python3" in call)
    became = next(i for i, call in enumerate(calls) if "bin/true" in call and "= 0" in call)
    ours = [call for call in calls[started + 1 : became] if _names_project(call, project, relative=False)]
    operations = [call for call in ours if not re.search("execve|flock|fcntl", call)]
    assert len(operations) <= most, "\n".join(operations)
    looked = [call for call in calls[started + 1 : became] if f'"{other}' in call and "execve" not in call]
    assert len(looked) == (2 if other.exists() else 0), "\n".join(looked)
    assert [call for call in calls[started + 1 : became] if "execve" in call and "= 0" in call] == []
    assert len([call for call in calls if "flock(" in call]) == 1


UV_LOCK = f"""\
version = 1
revision = 3
requires-python = ">=3.9"

[[package]]
name = "demo"
version = "1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "tally" }}]

[[package]]
name = "tally"
version = "1.0"
source = {{ path = "wheels/tally-1.0-py3-none-any.whl" }}
wheels = [{{ filename = "tally-1.0-py3-none-any.whl", hash = "sha256:{TALLY}" }}]
"""


@pytest.mark.parametrize(
    ("options", "most"),
    [([], 8), (["--lock", "uv.lock"], 7), (["--lock", "uv.lock", "--env", "envs/{digest}"], 8)],
    ids=["", "named", "by digest"],
)
def test_a_uv_project(
    launcher: Path, project: Path, run_envsync: Run, tmp_path: Path, options: list[str], most: int
) -> None:
    """pyproject.toml is read once, for its options and as what the lock file was made of."""
    (project / "pylock.toml").unlink()
    (project / "uv.lock").write_text(UV_LOCK)
    (project / "pyproject.toml").write_text('[project]\nname = "demo"\nversion = "1.0"\ndependencies = ["tally"]\n')
    words = ["run", *options, "--", "true"]
    run_envsync(*words, cwd=project, check=True)
    calls = traced([str(launcher), *words], project, tmp_path / "trace")
    started = next(i for i, call in enumerate(calls) if "execve" in call and "python3" in call)
    became = next(i for i, call in enumerate(calls) if "bin/true" in call and "= 0" in call)
    ours = [call for call in calls[started + 1 : became] if _names_project(call, project, relative=True)]
    operations = [call for call in ours if not re.search("execve|flock|fcntl", call)]
    assert len(operations) == most, "\n".join(operations)
    assert len([call for call in operations if "pyproject.toml" in call]) == 1


def test_what_only_looks_leaves_no_name(project: Path, run_envsync: Run) -> None:
    """Neither `status` nor a dry run writes anything; a sync leaves the name for the first launch."""
    (project / "requirements.txt").write_text(f"--no-index\n--find-links {project}/wheels\n{PINNED}\n")
    (project / "envs").mkdir()
    asked = ["--lock", "requirements.txt", "--env", "envs/{digest}"]
    run_envsync("status", *asked, cwd=project, check=True)
    run_envsync("sync", "--dry-run", *asked, cwd=project, check=True)
    assert list((project / "envs").iterdir()) == []
    run_envsync("sync", *asked, cwd=project, check=True)
    assert (project / "envs/.envsync-names").is_dir()


def _names_project(call: str, project: Path, *, relative: bool) -> bool:
    """Tell whether a call names a path in the project, absolute or relative to the working directory."""
    path = re.search(r'"([^"]*)"', call)
    if path is None or path[1] == "":
        return False
    return path[1].startswith(str(project)) or (relative and not path[1].startswith("/"))


IMPORTED = "import sys; from envsync.__main__ import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
OTHERS = {"sync": {"click", "envsync.cli.main"}, "status": {"envsync.leading.lead", "envsync.doctor", "httpx2", "rich"}}


@pytest.mark.parametrize("command", OTHERS)
def test_a_command_imports_nothing_of_the_others(project: Path, command: str) -> None:
    """A plain `sync` takes no click; `status` does not wait for what only a sync, a check or `doctor` need."""
    words = [sys.executable, "-c", IMPORTED, command]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=True)
    imported = set(done.stderr.split())
    assert f"envsync.cli.{command}" in imported
    others = {f"envsync.cli.{name}" for name in ("sync", "status", "check", "doctor", "display")} - {
        f"envsync.cli.{command}"
    }
    assert imported & (others | OTHERS[command]) == set()


def test_the_launcher_can_be_linked_to(launcher: Path, project: Path, tmp_path: Path) -> None:
    """As pipx and `uv tool` do it: the script finds its Python through symbolic links, relative ones, too."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "envsync").symlink_to(os.path.relpath(launcher, tmp_path / "bin"))
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    done = subprocess.run(
        ["envsync", "run", "greet"],
        cwd=project,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "HELLO, WORLD!\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda env: (env / "pyvenv.cfg").write_text((env / "pyvenv.cfg").read_text() + "\n"),
        lambda env: (next(env.glob("lib/python*/site-packages")) / "stray.py").write_text(""),
        lambda env: (env / ".envsync" / "stamp").unlink(),
        lambda env: (env / ".envsync" / "stamp").write_bytes((env / ".envsync" / "stamp").read_bytes()[:-9]),
        lambda env: (env / ".envsync" / "in-use").rename(env / ".envsync" / "other"),
        lambda env: (env.parent / "pylock.toml").write_text((env.parent / "pylock.toml").read_text() + "\n"),
        lambda env: (env.parent / "pyproject.toml").write_text("[tool.envsync]\ninexact = true\n"),
    ],
    ids=["pyvenv.cfg", "site-packages", "no stamp", "torn stamp", "in-use", "lock file", "options"],
)
def test_any_doubt_leads_to_the_slow_path(project: Path, run_envsync: Run, spoil: Callable[[Path], object]) -> None:
    """Whatever the stamp vouches for and is not as it was makes the fast lane say "don't know"."""
    from envsync.launch import Environment, fast_lane, request

    def enters() -> bool:
        asked = request.resolve({"lock": str(project / "pylock.toml")}, {})
        entry = fast_lane.enter(asked, Environment(str(project / ".venv")))
        if entry is not None:
            os.close(entry.fd)
        return entry is not None

    assert enters()
    spoil(project / ".venv")
    assert not enters()
    assert run_envsync("run", "greet", cwd=project).stdout == "HELLO, WORLD!\n"
    assert enters()


def test_a_copied_environment_is_not_the_one_that_was_stamped(project: Path, run_envsync: Run, tmp_path: Path) -> None:
    """A copy has scripts that name the original: it is remade where it is."""
    shutil.copytree(project / ".venv", tmp_path / "copy", symlinks=True)
    done = run_envsync("run", "--lock", str(project / "pylock.toml"), "--env", "copy", "--", "greet")
    assert done.stdout == "HELLO, WORLD!\n"
    assert str(project) not in (tmp_path / "copy" / "bin" / "greet").read_text()


@pytest.mark.parametrize(("site", "tries"), [("", 2), ("user-configuration = false\n", 1)], ids=["", "spared"])
def test_the_files_of_site_and_user(
    launcher: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, tries: int
) -> None:
    """Two tries to open a file, outside of the project; one if the site says that homes are to be left alone."""
    if site:
        (tmp_path / "site.toml").write_text(site)
        monkeypatch.setenv("ENVSYNC_SITE_CONFIG", str(tmp_path / "site.toml"))
    words = [str(launcher), "run", "--lock", str(project / "pylock.toml"), "--", "true"]
    calls = traced(words, tmp_path, tmp_path / "trace")
    named = [call for call in calls if re.search(r'"[^"]*/(envsync|site)\.toml"', call)]
    assert len(named) == tries, "\n".join(named)
    assert not any("libtomllib" in call or "tomllib" in call for call in calls)


@pytest.mark.parametrize("options", [[], ["--python", "{own}"]], ids=["", "asked for"])
def test_an_environment_named_by_its_python(
    launcher: Path, project: Path, run_envsync: Run, tmp_path: Path, options: list[str]
) -> None:
    """`{python}` is the version; one file more tells it where a Python was asked for."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    asked = [each.format(own=own) for each in options]
    words = [
        "run",
        "--lock",
        str(project / "pylock.toml"),
        "--env",
        str(project / "envs/py{python}"),
        *asked,
        "--",
        "true",
    ]
    run_envsync(*words, check=True)
    flags = getattr(sys, "abiflags", "")
    assert (project / f"envs/py{own}{flags}/bin/python").exists()
    calls = traced([str(launcher), *words], tmp_path, tmp_path / "trace")
    started = next(i for i, call in enumerate(calls) if "execve" in call and "python3" in call)
    became = next(i for i, call in enumerate(calls) if "bin/true" in call and "= 0" in call)
    ours = [call for call in calls[started + 1 : became] if _names_project(call, project, relative=False)]
    operations = [call for call in ours if not re.search("execve|flock|fcntl", call)]
    assert len(operations) <= 7 + bool(options), "\n".join(operations)


def test_what_a_job_costs(launcher: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job, the first launch leaves a name, and each later one makes one call more than outside, on this node."""
    words = [str(launcher), "run", "--", "true"]
    outside = traced(words, project, tmp_path / "trace")
    assert [call for call in outside if "held." in call or "holders" in call] == []
    monkeypatch.setenv("SLURM_JOB_ID", f"test-{os.getpid()}")
    first = traced(words, project, tmp_path / "trace")
    later = traced(words, project, tmp_path / "trace")
    marks = [call for call in later if "held." in call]
    for call in marks:
        os.rmdir(call.split('"')[1])
    assert len(list((project / ".venv/.envsync/holders").iterdir())) == 1
    assert len([call for call in later if "fcntl" not in call]) == len([c for c in outside if "fcntl" not in c]) + 1
    assert len(marks) == 1
    assert "mkdir" in marks[0]
    assert "EEXIST" in marks[0]
    became = next(i for i, call in enumerate(first) if "bin/true" in call and "= 0" in call)
    left = next(i for i, call in enumerate(first) if "rename" in call and "/holders/" in call)
    shared = next(i for i, call in enumerate(first) if "LOCK_SH|LOCK_NB" in call)
    assert shared < left < became
