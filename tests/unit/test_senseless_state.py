"""State files that are whole, with a fitting checksum, and make no sense: whoever reads one takes it for absent.

Real files of a real environment and cache are changed, one value or some bytes at a time, sealed again, and read by
everything that reads them. Nothing but our own errors may come out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envsync.errors import EnvironmentRefusedError, EnvsyncError
from envsync.installed import ledger, scan
from envsync.launch import Environment, fast_lane, request, stamp
from envsync.launch.request import Request
from envsync.library import blocking, status
from envsync.locks import kind
from envsync.python.facts import Layout
from envsync.store import bytecode, users
from envsync.system import atomic, records
from envsync.transaction import journal, owned
from envsync.transaction.journal import Identity, Journal, Place, Remove
from envsync.waiting import failures, queue
from envsync.wheel import manifest
from tests.environments import FIXTURES, site_packages

NASTY = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        10**30,
        1.5,
        float("inf"),
        "",
        "x",
        "a\0b",
        "../../x",
        "/",
        "\udcff",
        "9" * 5000,
        [],
        {},
        [[]],
        [1],
    ]
)
"""What a value is replaced by."""


class World(NamedTuple):
    environment: Environment
    asked: Request
    layout: Layout
    cache: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    lock, env, cache = FIXTURES / "pylock.toml", root / "env", root / "cache"
    blocking.sync(lock, env=env, cache_dir=cache, compile_bytecode=True)
    site = site_packages(env).relative_to(env).as_posix()
    asked = request.resolve({"lock": str(lock), "env": str(env), "cache_dir": str(cache)}, {})
    return World(Environment(str(env)), asked, Layout(site, site, "bin", "include"), cache)


def changed(value: Any, data: st.DataObject) -> Any:
    """Change one value in a JSON value, or leave it out."""
    if isinstance(value, (dict, list)) and value and data.draw(st.integers(0, 4)):
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from(keys))
        copied = value.copy()
        if data.draw(st.integers(0, 6)) == 0:
            del copied[key]
        else:
            copied[key] = changed(value[key], data)
        return copied
    return data.draw(NASTY)


def changed_bytes(content: bytes, data: st.DataObject) -> bytes:
    """Change some bytes, or a word."""
    if data.draw(st.booleans()):
        words = content.split(b" ")
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(
            st.sampled_from([b"", b"x", b"-1", b"9" * 5000, b"\0", b"\xff", b"\n", b"../x"])
        )
        return b" ".join(words)
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 20)))
    return content[:start] + data.draw(st.binary(max_size=6)) + content[end:]


def read_all(world: World) -> None:
    """Read the environment's state as commands do."""
    environment, asked = world.environment, world.asked
    entry = fast_lane.enter(asked, environment)
    if entry is not None:
        os.close(entry.fd)
    fast_lane.is_named(asked, environment)
    assert json.dumps(status.look(environment, asked).as_json())
    queue.waiting(environment)
    codes: set[int] = set()
    for leading in (False, True):
        try:
            failures.check(environment, asked.key, failures.Arrival(whole_process=True), leading=leading)
        except EnvsyncError as error:
            codes.add(error.exit_code)
    assert codes.isdisjoint({0, 1})
    try:
        known = ledger.load_ledger(environment)
    except EnvironmentRefusedError:
        return  # it seems to be of a newer format
    for item in scan.scan(environment, world.layout, known):
        owned.files_of(environment, item)
    decided = journal.read(environment)
    assert decided is None or journal.is_confined(decided)
    try:
        kind.read(environment)
    except EnvsyncError:
        pass  # it may be damaged, and that is refused


fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


def try_file(world: World, path: str, content: bytes) -> None:
    """Put something into a state file's place, and what was there back."""
    before = atomic.read_if_there(path)
    try:
        atomic.write(path, content)
        read_all(world)
    finally:
        atomic.discard(path)
        if before is not None:
            atomic.write(path, before)


@fuzzed
@given(data=st.data())
def test_stamps(world: World, data: st.DataObject) -> None:
    """Also of the format of the day after tomorrow."""
    whole = atomic.read_if_there(world.environment.stamp)
    assert whole
    body = changed_bytes(stamp.unseal(whole), data)
    try_file(world, world.environment.stamp, stamp.seal(body))


@fuzzed
@given(data=st.data())
def test_ledgers(world: World, data: st.DataObject) -> None:
    """The names in one are looked for in the environment."""
    whole = atomic.read_if_there(world.environment.installed)
    assert whole
    value = changed(json.loads(stamp.unseal(whole)), data)
    try_file(world, world.environment.installed, stamp.seal(json.dumps(value).encode() + b"\n"))


@fuzzed
@given(data=st.data())
def test_journals(world: World, data: st.DataObject) -> None:
    """One that is read is confined to the environment, whatever it says."""
    work = f"{world.layout.purelib}/.envsync/work"
    steps = (Remove(f"{world.layout.purelib}/a", Identity(1, 2, 3), f"{work}/old/0"), Place(f"{work}/new/b", "bin/b"))
    whole = stamp.unseal(journal.dump(Journal(work, steps)))
    if data.draw(st.booleans()):
        lines = [json.loads(line) for line in whole.splitlines()]
        index = data.draw(st.integers(0, len(lines) - 1))
        lines[index] = changed(lines[index], data)
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    else:
        body = changed_bytes(whole, data)
    try_file(world, world.environment.journal, stamp.seal(body))


@fuzzed
@given(data=st.data())
def test_failures(world: World, data: st.DataObject) -> None:
    """Whoever waited for what failed ends with a status of ours, never with 0 or with 1."""
    entry = {"id": "1", "key": world.asked.key, "kind": data.draw(st.sampled_from(["fatal", "passing", "died"]))}
    entry |= {"time": 1.0, "boot": "x", "boottime": 1.0, "message": "m", "hint": None, "exit_code": 125, "pid": 1}
    value = changed({"format": 2, "failures": [entry, dict(entry, id="2"), dict(entry, id="3")]}, data)
    try_file(world, world.environment.failure, stamp.seal(json.dumps(value).encode()))


@pytest.mark.parametrize("name", ["progress", "turn", "locking"])
@fuzzed
@given(data=st.data())
def test_flat_files(world: World, name: str, data: st.DataObject) -> None:
    """Progress, turns and how an environment is locked."""
    said = {"id": "1", "host": "h", "pid": 7, "place": "p", "command": "c", "since": 1.5, "key": world.asked.key}
    said |= {"token": "t", "holds": "", "phase": "staging", "done": 1, "total": 2, "kind": "flock", "in_use": True}
    value = changed({"format": 1, "reason": "", **said}, data)
    content = json.dumps(value).encode()
    if isinstance(value, dict) and data.draw(st.booleans()):
        flat = {key: item for key, item in value.items() if isinstance(item, (str, int, float, bool)) or item is None}
        content = records.dump_object(flat) if name == "locking" else records.dump(flat)
    path = getattr(world.environment, name)
    try_file(world, path, changed_bytes(content, data) if data.draw(st.booleans()) else content)


def in_cache(world: World, pattern: str) -> Path:
    return min(path for path in world.cache.glob(pattern) if path.is_file())


def resealed(value: dict[str, Any], rows: bytes) -> bytes:
    head = json.dumps(value).encode()
    return b"%s\n%s\n%s" % (head, stamp.checksum(head).encode(), rows)


@pytest.mark.parametrize(
    ("pattern", "load"),
    [("v1/wheels/*/manifest.json", manifest.load), ("v1/bytecode/*/*/manifest.json", bytecode.load)],
    ids=["wheel", "bytecode"],
)
@fuzzed
@given(data=st.data())
def test_manifests(world: World, pattern: str, load: Callable[[bytes], Any], data: st.DataObject) -> None:
    """One that is read has no name that leads elsewhere, and only text where there is to be text."""
    whole = in_cache(world, pattern).read_bytes()
    head, _, rows = whole.split(b"\n", 2)
    value = changed(json.loads(head), data)
    try:
        found = load(resealed(value, rows))
    except ValueError:
        return  # as good as absent
    for directory in found.directories:
        assert ".." not in directory.path.split("/")
        assert not directory.path.startswith("/")
        assert not any("/" in name or name in ("", ".", "..") for name, *_ in directory.files)


@fuzzed
@given(data=st.data())
def test_references_to_a_cache(data: st.DataObject) -> None:
    """What is written there of environments that link to it."""
    value = {"env": "/e", "host": "h", "view": "v", "above": [[1, 2]], "in-use": [1, 2], "entries": ["x"]}
    users._load(json.dumps(changed(value, data)).encode(), "x")


SENSELESS = {
    "stamp": lambda env: sealed_lines(env / ".envsync/stamp", stamp.HEADER.encode() + b"\nin-use abc\n"),
    "ledger": lambda env: sealed_lines(env / ".envsync/installed.json", b'{"format":2,"distributions":[]}\n'),
    "journal": lambda env: sealed_lines(env / ".envsync/journal", b'{"format": 1}\n[]\n'),
    "progress": lambda env: (env / ".envsync/progress.json").write_text('{"format": 1, "pid": [], "key": 7}'),
    "failure": lambda env: (env / ".envsync/failure.json").write_text(
        '{"format": 1, "failures": [{"exit_code": 0}, 7]}'
    ),
    "turn": lambda env: (env / ".envsync/turn").write_text('{"format": 1, "key": {}}'),
}


def sealed_lines(path: Path, body: bytes) -> None:
    path.write_bytes(stamp.seal(body))


@pytest.mark.parametrize("spoil", SENSELESS.values(), ids=SENSELESS)
def test_the_next_sync_heals_it(tmp_path: Path, world: World, spoil: Callable[[Path], object]) -> None:
    """What counts as absent is written anew, and the environment is what it was."""
    env = tmp_path / "env"
    lock = tmp_path / "pylock.toml"
    shutil.copy(FIXTURES / "pylock.toml", lock)
    shutil.copytree(FIXTURES / "wheels", tmp_path / "wheels")
    blocking.sync(lock, env=env, cache_dir=world.cache)
    spoil(env)
    blocking.sync(lock, env=env, cache_dir=world.cache)
    assert blocking.sync(lock, env=env, cache_dir=world.cache).outcome == "current"
    blocking.sync(lock, env=env, cache_dir=world.cache, compile_bytecode=True)
    assert not (env / ".envsync" / "journal").exists()


def test_a_site_packages_that_leads_out_is_refused(tmp_path: Path, world: World) -> None:
    """Nothing is written through a link to somewhere else."""
    env = tmp_path / "env"
    blocking.sync(FIXTURES / "pylock.toml", env=env, cache_dir=world.cache)
    site = site_packages(env)
    site.rename(tmp_path / "elsewhere")
    site.symlink_to(tmp_path / "elsewhere")
    before = sorted(os.listdir(tmp_path / "elsewhere"))
    with pytest.raises(EnvsyncError, match="symbolic link leads"):
        blocking.sync(FIXTURES / "pylock.next.toml", env=env, cache_dir=world.cache)
    assert sorted(os.listdir(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize("exit_code", [0, 1, True, -1, 10**30, "125", None])
def test_a_shared_failure_never_ends_in_success(world: World, exit_code: object) -> None:
    """Nor in 1, which under `run` is the command's own."""
    entry = {"id": "1", "key": world.asked.key, "kind": "fatal", "message": "m", "exit_code": exit_code}
    atomic.write(world.environment.failure, json.dumps({"format": 1, "failures": [entry]}).encode())
    try:
        with pytest.raises(EnvsyncError) as caught:
            failures.check(world.environment, world.asked.key, failures.Arrival(whole_process=True), leading=False)
    finally:
        atomic.discard(world.environment.failure)
    assert caught.value.exit_code == 125
