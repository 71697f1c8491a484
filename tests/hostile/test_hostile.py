"""Every hostile wheel through a whole sync, beside an honest neighbour: refused for its own reason, or as by pip."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import envsync
from envsync.errors import EnvsyncError, LockFileError, WheelError
from envsync.wheel import unpack
from tests.environments import leftovers, site_packages, unverified
from tests.hostile.cases import FILENAME, INFO, SITE, Case
from tests.hostile.corpus import CASES, KINDS, main, write
from tests.hostile.names import OUTSIDE
from tests.hostile.world import Meter, World, enter, installed, limited, make_world, snapshot
from tests.wheels import build_wheel, sha256_of


def each(*, refused: bool, turn: int) -> list[Any]:
    """Return the cases for one of two tests. Each runs in one of them every time, in both only with the slow ones."""
    cases = [case for case in CASES if (case.refused is not None) is refused]
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow or number % 2 != turn else [])
        for number, case in enumerate(cases)
    ]


GENERATED = ("RECORD", "INSTALLER", "REQUESTED")


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """Count what is unpacked."""
    meter = Meter()
    write_all = unpack._write_all

    def metered(descriptor: int, data: bytes) -> None:
        meter.add(len(data))
        write_all(descriptor, data)

    monkeypatch.setattr(unpack, "_write_all", metered)
    return meter


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build what is honest: two versions of the neighbour, and the version of the other that was still sound."""
    directory = tmp_path_factory.mktemp("honest")

    def honest(name: str, version: str) -> Path:
        scripts = {"console_scripts": {name: f"{name}:main"}}
        data = {f"data/share/{name}": version}
        return Path(
            build_wheel(directory, name, version, {f"{name}/__init__.py": version}, entry_points=scripts, data=data)
        )

    return {
        "neighbour": honest("neighbour", "1.0"),
        "newer": honest("neighbour", "1.1"),
        "sound": honest("hostile", "1.0"),
    }


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> tuple[World, Path]:
    """Make a world with a good environment, in which one case comes after the other, and its lock file."""
    world = make_world(tmp_path_factory.mktemp("lasting"))
    lock = world.lock("good", ("hostile", "1.0", wheels["sound"]), ("neighbour", "1.0", wheels["neighbour"]))
    world.sync(lock)
    world.lock("bad")
    world.lock("odd")
    return world, lock


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: tuple[World, Path]) -> World:
    """Make a world without environment and wheels; its cache knows of the interpreter, which saves a second."""
    world = make_world(tmp_path / "world")
    shutil.copytree(lasting[0].cache, world.cache, ignore=shutil.ignore_patterns("wheels", "tmp", "targets"))
    return enter(world, monkeypatch)


@pytest.fixture
def good(lasting: tuple[World, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[World, Path]:
    """Enter the lasting world, its environment made good again, whatever the last test made of it."""
    world, lock = lasting
    enter(world, monkeypatch)
    try:
        world.sync(lock)
        assert installed(world.env) == GOOD
    except (EnvsyncError, AssertionError):
        shutil.rmtree(world.env)
        world.sync(lock)
    return world, lock


GOOD = {
    *(f"{place}/{name}" for name in ("hostile", "neighbour") for place in ("bin", "share")),
    *(f"{SITE}/{name}/__init__.py" for name in ("hostile", "neighbour")),
    *(
        f"{SITE}/{name}-1.0.dist-info/{file}"
        for name in ("hostile", "neighbour")
        for file in ("METADATA", "WHEEL", "RECORD", "INSTALLER", "REQUESTED", "entry_points.txt")
    ),
}


def neighbours(version: str) -> set[str]:
    return {path.replace("1.0", version) for path in GOOD if "neighbour" in path}


def refusal(world: World, case: Case, meter: Meter, lock: Path) -> None:
    """Sync what is to be refused, and see that it is, as it should be."""
    before = int(meter)
    with limited(case.memory), pytest.raises(EnvsyncError) as caught:
        world.sync(lock)
    assert caught.value.exit_code == 125
    assert type(caught.value) is case.error
    assert caught.value.message.isprintable()
    assert isinstance(caught.value, WheelError | LockFileError)
    assert re.fullmatch(case.refused or "", caught.value.problem), caught.value.problem
    if isinstance(caught.value, WheelError):
        assert caught.value.wheel == case.filename
        assert re.search("`[^`]+`", caught.value.hint or ""), caught.value.hint
    # A child may have tried before, and the neighbour takes some bytes, too.
    assert int(meter) - before <= 2 * case.written + 10_000


@pytest.mark.parametrize("case", each(refused=True, turn=0))
def test_a_hostile_wheel_makes_no_environment(case: Case, world: World, wheels: dict[str, Path], meter: Meter) -> None:
    """Refused for its own reason, with nothing written outside, and nothing left in environment or cache."""
    wheel = write(case, world.root / "wheels")
    lock = world.lock("bad", (*case.wanted, wheel), ("neighbour", "1.1", wheels["newer"]))
    around = world.around()
    refusal(world, case, meter, lock)
    assert world.around() == around
    assert not os.path.lexists(f"/{OUTSIDE}")
    assert not os.path.lexists(world.env)
    assert world.stored() <= {sha256_of(wheels["newer"])}


@pytest.mark.parametrize("case", each(refused=True, turn=1))
def test_a_hostile_wheel_spoils_no_environment(
    case: Case, good: tuple[World, Path], tmp_path: Path, wheels: dict[str, Path], meter: Meter
) -> None:
    """As an upgrade it changes nothing: the environment is as it was, and still current."""
    world, sound = good
    wheel = write(case, tmp_path)
    lock = world.lock("bad", (*case.wanted, wheel), ("neighbour", "1.1", wheels["newer"]))
    around, inside = world.around(), snapshot(world.env, but=(world.env / ".envsync",))
    stamp = snapshot(world.env / ".envsync")["stamp"]
    refusal(world, case, meter, lock)
    assert world.around() == around
    assert not os.path.lexists(f"/{OUTSIDE}")
    assert snapshot(world.env, but=(world.env / ".envsync",)) == inside
    assert snapshot(world.env / ".envsync")["stamp"] == stamp
    assert leftovers(world.env) == []
    assert sha256_of(wheel) not in world.stored()
    assert world.sync(sound).outcome == "current"


@pytest.mark.parametrize("case", each(refused=False, turn=0))
def test_what_is_accepted_is_installed_as_by_pip(
    case: Case, world: World, wheels: dict[str, Path], meter: Meter, by_pip: Path
) -> None:
    """Exactly the files that it should bring are there, the same that pip installs, and every RECORD verifies."""
    wheel = write(case, world.root / "wheels")
    lock = world.lock("odd", (*case.wanted, wheel), ("neighbour", "1.1", wheels["newer"]))
    around = world.around()
    with limited(case.memory):
        result = world.sync(lock)
    assert int(meter) <= case.written + 10_000
    assert world.around() == around
    assert not os.path.lexists(f"/{OUTSIDE}")
    assert installed(world.env) == case.installed | neighbours("1.1")
    assert leftovers(world.env) == []
    assert [note for note in result.notes if re.fullmatch(case.note or "(?!)", note)] == list(result.notes)
    if case.verifies:
        assert unverified(world.env) == []
    assert not any(path.stat().st_mode & 0o7022 for path in owned(world.env, case))
    if case.pip is not None:
        compare_with_pip(case, world.env, by_pip / case.name)


@pytest.mark.parametrize("case", each(refused=False, turn=1))
def test_what_is_accepted_comes_and_goes(
    case: Case, good: tuple[World, Path], tmp_path: Path, wheels: dict[str, Path]
) -> None:
    """As an upgrade it leaves nothing of what was there before, and once downgraded nothing of itself."""
    world, sound = good
    wheel = write(case, tmp_path)
    lock = world.lock("odd", (*case.wanted, wheel), ("neighbour", "1.1", wheels["newer"]))
    around = world.around()
    world.sync(lock)
    assert installed(world.env) == case.installed | neighbours("1.1")
    if case.verifies:
        assert unverified(world.env) == []
    world.sync(sound)
    assert installed(world.env) == GOOD
    assert unverified(world.env) == []
    assert leftovers(world.env) == []
    assert world.around() == around


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.unlocked is not None])
def test_what_record_does_not_vouch_for_needs_a_hash_in_the_lock_file(case: Case, world: World, tmp_path: Path) -> None:
    """Without one it is refused for its own reason, also while the store has it for one whose lock file has it."""
    wheel = write(case, world.root / "wheels")
    direct, found = world.project / "direct.txt", world.project / "found.txt"
    direct.write_text(f"hostile @ {wheel.as_uri()}\n")
    found.write_text(f"--no-index\n--find-links {wheel.parent}\nhostile==2.0\n")

    def refused(lock: Path, env: Path) -> None:
        with pytest.raises(WheelError) as caught:
            envsync.sync(lock, env=env, cache_dir=world.cache, offline=True)
        assert re.fullmatch(case.unlocked or "", caught.value.problem), caught.value.problem
        assert f"`pip hash {wheel}`" in (caught.value.hint or "")

    refused(direct, tmp_path / "a")
    refused(found, tmp_path / "b")
    assert world.stored() == set()
    world.sync(world.lock("odd", (*case.wanted, wheel)))
    assert world.stored() == {sha256_of(wheel)}
    refused(direct, tmp_path / "a")
    refused(found, tmp_path / "b")
    assert world.stored() == {sha256_of(wheel)}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES if case.details is not None])
def test_what_is_odd_is_said_to_those_who_ask_for_more(
    case: Case, world: World, run_envsync: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Without `--verbose` a sync is silent about it."""
    wheel = write(case, world.root / "wheels")
    arguments = ("--lock", world.lock("odd", (*case.wanted, wheel)), "--cache-dir", world.cache, "--offline")
    loud = run_envsync("sync", "--verbose", "--env", world.env, *arguments)
    lines = [line for line in loud.stderr.splitlines() if line.startswith("envsync: hostile==2.0: ")]
    assert lines, loud.stderr
    assert all(re.fullmatch(f"envsync: {case.details}", line) for line in lines), lines
    assert "hostile==2.0: " not in run_envsync("sync", "--env", world.env.parent / "other", *arguments).stderr


def owned(env: Path, case: Case) -> list[Path]:
    site = site_packages(env)
    return [site / path.removeprefix(f"{SITE}/") if path.startswith(SITE) else env / path for path in case.installed]


PIP = """
import json, sys
from pip._internal.cli.main import main
options = "install --quiet --quiet --no-deps --no-index --no-compile --ignore-installed --no-warn-script-location"
options += " --disable-pip-version-check --no-cache-dir"
failed = [name for name, prefix, wheel in json.load(sys.stdin) if main([*options.split(), "--prefix", prefix, wheel])]
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def by_pip(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Install what is accepted with pip, each below a prefix of its own, all by one process: most of it is imports."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip to compare with")
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = {item.name for item in items if "by_pip" in item.fixturenames}
    directory = tmp_path_factory.mktemp("pip")
    jobs = [
        (case.name, str(directory / case.name), str(write(case, directory / "wheels" / case.name)))
        for case in CASES
        if f"test_what_is_accepted_is_installed_as_by_pip[{case.name}]" in asked and case.pip is not None
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", PIP],
        input=json.dumps(jobs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=100,
        env={**os.environ, "HOME": str(directory / "home"), "PIP_CONFIG_FILE": os.devnull},
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []
    return directory


def compare_with_pip(case: Case, env: Path, prefix: Path) -> None:
    """Compare the files of a wheel with those that pip made of it, by name and content."""
    theirs = {
        re.sub("^lib64/", "lib/", re.sub(r"^include/(python[\d.]+)/", r"include/site/\1/", path)): path
        for path in installed(prefix)
    }
    assert theirs.keys() - {f"{SITE}/{INFO}/direct_url.json"} == case.installed | set(case.pip or ())
    for path in sorted(case.installed):
        if path.startswith("bin/") or path.rpartition("/")[2] in GENERATED or not case.verifies:
            continue
        ours, pips = (
            place / name.replace(SITE, site_packages(place).relative_to(place).as_posix(), 1)
            for place, name in ((env, path), (prefix, theirs[path]))
        )
        assert hashlib.sha256(ours.read_bytes()).digest() == hashlib.sha256(pips.read_bytes()).digest()


def test_a_refusal_on_the_command_line(
    world: World, wheels: dict[str, Path], run_envsync: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """A user gets status 125 and one line that says which wheel and why, with nothing that a terminal acts on."""
    case = next(case for case in CASES if case.name == "name-escape")
    wheel = write(case, world.root / "wheels")
    lock = world.lock("bad", (*case.wanted, wheel), ("neighbour", "1.1", wheels["newer"]))
    done = run_envsync("sync", "--lock", lock, "--env", world.env, "--cache-dir", world.cache)
    assert (done.returncode, done.stdout) == (125, "")
    reason = rf"refusing wheel `{FILENAME}`: a file name has a control character: `hostile/\\x1b\]0;evil\\x07.py`"
    assert re.fullmatch(f"envsync: (error: )?{reason}\nhint: .*`pip wheel .*`\n", done.stderr), done.stderr


def test_every_case_has_a_name_of_its_own() -> None:
    """So that a report says which it was."""
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)


def test_the_corpus_is_the_same_every_time() -> None:
    """Building a wheel twice gives the same bytes."""
    for case in CASES:
        if not case.slow and case.memory < 100_000_000:
            assert case.build() == case.build(), case.name


def test_the_corpus_can_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its table counts every case, its list has every claim, and its script makes the wheels."""
    assert main(["--table"]) == 0
    rows = re.findall(r"\| (\d+) \| (\d+) \|", table := capsys.readouterr().out)
    assert sum(int(refused) + int(accepted) for refused, accepted in rows) == len(CASES)
    assert all(kind in table for kind in KINDS)
    assert main(["--list"]) == 0
    listing = capsys.readouterr().out
    assert all(case.claim in listing for case in CASES)
    assert main([]) == 2
