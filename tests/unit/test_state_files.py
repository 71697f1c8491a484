"""Each file of an environment and of a cache: whole, damaged, of the format before, and of a newer one.

What is damaged counts as absent. What a newer envsync has written is refused with what to do where something would be
changed by what it says, and else counts as absent, too. What the version before has written is read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from envsync.building import built
from envsync.bundling.directory import FORMAT, Bundle, existing
from envsync.errors import EnvironmentRefusedError, EnvsyncError
from envsync.installed.ledger import load_ledger
from envsync.launch import Environment, names, stamp
from envsync.launch.request import BUNDLE
from envsync.launch.stamp import checksum, seal, unseal
from envsync.library import blocking
from envsync.locks import kind
from envsync.store import bytecode, users
from envsync.store.store import Store
from envsync.system import groups, records
from envsync.transaction import journal
from envsync.transaction.journal import Journal, Place
from envsync.waiting import failures, word
from envsync.wheel import manifest
from tests.environments import FIXTURES


class Kept(NamedTuple):
    """A file that says something, and how it is read."""

    path: Path
    read: Callable[[], object]
    """Returns what the file says; nothing if that is as good as absent."""


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def first(cache: Path, pattern: str) -> Path:
    return min(path for path in (cache / "v1").glob(pattern) if path.is_file())


def unless_damaged(load: Callable[[bytes], object], path: Path) -> object:
    try:
        return load(path.read_bytes())
    except ValueError:
        return None


def stamp_of(path: Path) -> object:
    """Read a stamp, and refuse a newer one as a leader does."""
    data = path.read_bytes()
    found = stamp.load(data)
    if found is None and stamp.is_newer(data):
        raise EnvironmentRefusedError("e", "a newer envsync keeps it", hint="upgrade")
    return found


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An environment with bytecode, and its cache, which knows of it."""
    root = tmp_path_factory.mktemp("synced")
    env, cache = root / "env", root / "cache"
    blocking.sync(FIXTURES / "pylock.toml", env=env, cache_dir=cache, compile_bytecode=True)
    users.record(str(cache), str(env), ["0" * 64])
    return env, cache


@pytest.fixture
def files(synced: tuple[Path, Path]) -> dict[str, Kept]:
    """Every kind of file that says something, as a sync leaves it or as it is while one goes on."""
    env, cache = synced
    environment = Environment(str(env))
    state = env / ".envsync"
    said = {"pid": 7, "host": "h", "key": "k"}
    failures.record(environment, "k", failures.FATAL, {"host": "h", "pid": 7})
    steps = Journal("lib/.envsync/1", (Place("lib/.envsync/1/new/0", "lib/a"),))
    flat = {name: written(state / path, records.dump(said)) for name, path in FLAT.items()}
    remembered = {name: first(cache, f"{name}/*") for name in ("interpreters", "skeletons", "targets")}
    name = names.Name("0123")
    name.seen = {"/python": "1.2.3"}
    named = written(env / names.DIRECTORY / "k", names.dump([name]))
    decided = written(state / "journal", journal.dump(steps))
    wheel, compiled = (first(cache, f"{path}/manifest.json") for path in ("wheels/*", "bytecode/*/*"))
    return {
        "stamp": Kept(state / "stamp", lambda: stamp_of(state / "stamp")),
        "journal": Kept(decided, lambda: journal.load(decided.read_bytes(), "e")),
        "installed.json": Kept(state / "installed.json", lambda: load_ledger(environment).entries),
        "names": Kept(named, lambda: names.load(named.read_bytes())),
        "locking": Kept(state / "locking", lambda: kind.read(environment)),
        "failure": Kept(state / "failure.json", lambda: failures.load(environment)),
        "users": Kept(first(cache, "users/*"), lambda: users.used(str(cache))),
        "wheel": Kept(wheel, lambda: unless_damaged(manifest.load, wheel)),
        "bytecode": Kept(compiled, lambda: unless_damaged(bytecode.load, compiled)),
        **{name: Kept(path, lambda path=path: records.load(str(path))) for name, path in (flat | remembered).items()},  # type: ignore[misc]
    }


FLAT = {
    "told": "told",
    "progress": "progress.json",
    "turn": "turn",
    "waiting": "waiting/k.-.h.7.1",
    "holder": "holders/slurm.1.h.0",
}
RECORDS = ("installed.json", "failure", *FLAT, "interpreters", "skeletons", "targets")
"""Sealed objects, a pair a line."""
MANIFESTS = ("wheel", "bytecode")
REFUSED = ("stamp", "journal", "installed.json", "locking", "users")
"""What decides what is changed or removed."""
ALL = ("stamp", "names", "journal", "locking", "users", *RECORDS, *MANIFESTS)


def of_format(name: str, data: bytes, number: int) -> bytes:
    """Write a file anew in the same words, with another number and a seal that fits."""
    if name in ("stamp", "names"):
        return seal(re.sub(rb"^(envsync-\w+) \d+", rb"\1 %d" % number, unseal(data)))
    if name in MANIFESTS:
        head, _, rows = data.split(b"\n", 2)
        head = json.dumps({**json.loads(head), "format": number}).encode()
        return b"\n".join((head, checksum(head).encode(), rows))
    if name == "journal":
        head, _, rest = unseal(data).partition(b"\n")
        return seal(json.dumps({**json.loads(head), "format": number}).encode() + b"\n" + rest)
    if name in RECORDS:
        return seal(records.dump_object({**records.parse(data), "format": number}))
    return json.dumps({**json.loads(data), "format": number}).encode()


def read_instead(kept: Kept, data: bytes) -> object:
    """Read other data in a file's place."""
    before = kept.path.read_bytes()
    kept.path.chmod(0o644)
    try:
        kept.path.write_bytes(data)
        return kept.read()
    finally:
        kept.path.write_bytes(before)


def test_none_is_left_out(files: dict[str, Kept], synced: tuple[Path, Path]) -> None:
    """All files with something in them are in the table, of the environment's state and of the cache but for wheels."""
    env, cache = synced
    assert sorted(files) == sorted(ALL)
    known = {kept.path.parent for kept in files.values()}
    for path in [*(env / ".envsync").rglob("*"), *(cache / "v1").rglob("*.json")]:
        if path.is_file() and path.stat().st_size and "wheels" not in path.parts and "bytecode" not in path.parts:
            assert path.parent in known
            assert path.parent.name != ".envsync" or path in {kept.path for kept in files.values()}


@pytest.mark.parametrize("name", ALL)
def test_whole(files: dict[str, Kept], name: str) -> None:
    """As it was written it says something."""
    assert files[name].read()


@pytest.mark.parametrize("name", ALL)
def test_cut(files: dict[str, Kept], name: str) -> None:
    """Without its end it counts as absent."""
    data = files[name].path.read_bytes()
    assert not read_instead(files[name], data[: len(data) // 2])
    assert not read_instead(files[name], b"")


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("locking", "users")])
def test_a_wrong_bit(files: dict[str, Kept], name: str) -> None:
    """A seal makes a file that was changed anywhere count as absent."""
    data = files[name].path.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 100)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        try:
            assert not read_instead(files[name], bytes(changed))
        except EnvironmentRefusedError:
            assert (name, position) == ("stamp", data.index(b"\n") - 1)  # it seems to be a newer one


@pytest.mark.parametrize("name", ALL)
def test_newer(files: dict[str, Kept], name: str) -> None:
    """Of what decides, one says what to do; all else is found out anew."""
    data = of_format(name, files[name].path.read_bytes(), 99)
    if name not in REFUSED:
        assert not read_instead(files[name], data)
        return
    with pytest.raises(EnvsyncError) as caught:
        read_instead(files[name], data)
    assert "upgrade" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["failure", *FLAT])
def test_former(files: dict[str, Kept], name: str) -> None:
    """Those of format 1 had no seal."""
    value = {**records.load(str(files[name].path)), "format": 1}
    assert read_instead(files[name], json.dumps(value).encode())


def test_former_ledger(files: dict[str, Kept]) -> None:
    """That of format 1 had its checksum as the first pair, and counts as absent without one that fits."""
    value = {**records.load(str(files["installed.json"].path)), "format": 1}
    dense = json.dumps(value, separators=(",", ":")).encode()
    former = b'{"checksum":"%s",%s' % (checksum(dense).encode(), dense[1:])
    assert read_instead(files["installed.json"], former) == files["installed.json"].read()
    for damaged in (dense, former.replace(b"sha256", b"sha265", 1), former.replace(b"checksum", b"check", 1)):
        assert not read_instead(files["installed.json"], damaged)


def test_a_stamp_that_says_more(files: dict[str, Kept]) -> None:
    """Whatever a newer envsync says in a stamp may be a condition: such a stamp vouches for nothing."""
    data = unseal(files["stamp"].path.read_bytes())
    assert not read_instead(files["stamp"], seal(data + b"gpu 12.4\n"))
    assert read_instead(files["stamp"], seal(data + b"racy\n"))


def test_failures_of_a_newer_envsync_stay(tmp_path: Path) -> None:
    """Those who wait for it find them; after an hour they concern nobody."""
    environment = Environment(str(tmp_path))
    path = written(tmp_path / ".envsync" / "failure.json", b"")
    failures.record(environment, "k", failures.FATAL, {"host": "h", "pid": 7})
    newer = of_format("failure", path.read_bytes(), 99)
    path.write_bytes(newer)
    failures.record(environment, "other", failures.FATAL, {"host": "h", "pid": 8})
    failures.forgive(environment, "k")
    assert path.read_bytes() == newer
    long_ago = path.stat().st_mtime - failures.KEPT_SECONDS - 60
    os.utime(path, (long_ago, long_ago))
    failures.record(environment, "other", failures.FATAL, {"host": "h", "pid": 8})
    assert [each["pid"] for each in failures.load(environment)] == [8]


def test_what_a_newer_envsync_remembers_stays(tmp_path: Path) -> None:
    """A record in the cache is replaced if it is damaged, or older, and not if it is newer."""
    path = written(tmp_path / "v1" / "hashes" / "k.json", b"")
    groups.write(str(tmp_path), str(path), {"sha256": "a"})
    newer = of_format("targets", path.read_bytes(), 99)
    path.write_bytes(newer)
    groups.write(str(tmp_path), str(path), {"sha256": "b"})
    assert path.read_bytes() == newer
    assert not records.load(str(path))
    path.write_bytes(newer[:-9])
    groups.write(str(tmp_path), str(path), {"sha256": "b"})
    assert records.load(str(path))["sha256"] == "b"


def test_a_word_of_a_newer_envsync() -> None:
    """It is none, and those who do not understand each other's words have other files."""
    said = word.Word(1.0, 0.5, ((1, 2), (3, 4))).dump()
    assert word.load(said) is not None
    assert word.load(of_format("turn", said, 99)) is None


def test_what_a_newer_envsync_has_built_stays(tmp_path: Path) -> None:
    """It is not used, and not replaced."""
    store, trusted = Store(str(tmp_path)), built.users(())
    store.prepare()

    def keep() -> built.Built:
        wheel = written(tmp_path / "demo-1.0-py3-none-any.whl", b"wheel")
        return built.keep(store, "k/any", str(wheel), "b" * 64, log="", facts={}, trusted=trusted)

    record = Path(keep().path).with_name(built.RECORD)
    newer = of_format("turn", record.read_bytes(), 99)
    record.chmod(0o644)
    record.write_bytes(newer)
    record.chmod(0o444)
    assert built.find(store, "k", ("any",), trusted) is None
    with pytest.raises(EnvsyncError, match="a newer envsync has made it"):
        keep()
    assert record.read_bytes() == newer


def test_a_bundle_of_a_newer_envsync(tmp_path: Path) -> None:
    """It is neither updated nor pruned; installing from it takes a lock file like any other."""
    bundle = Bundle(str(tmp_path))
    bundle.prepare()
    text = b"lock-version = '1.0'\n" + BUNDLE + b"format = %d\n"
    assert bundle.publish(text % FORMAT)
    newer = written(Path(bundle.lock_file), text % (FORMAT + 1)).read_bytes()
    for change in (lambda: existing(str(tmp_path)), lambda: bundle.publish(text % FORMAT)):
        with pytest.raises(EnvsyncError) as caught:
            change()
        assert "upgrade" in (caught.value.hint or "")
    assert Path(bundle.lock_file).read_bytes() == newer


def test_entries_of_another_format_have_another_directory() -> None:
    """So two versions that share a cache do not replace each other's: who raises a number renames `v1`, and this."""
    assert (manifest.FORMAT, bytecode.FORMAT, Store("").wheels) == (3, 3, "/v1/wheels")
