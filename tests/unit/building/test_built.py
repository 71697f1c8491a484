"""What was built and is kept: for whom it counts, and what others are told of builds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.building import built
from envsync.errors import BuildError, UsageError
from envsync.store.store import Store
from envsync.system import atomic, records

KEY, SHA = "a" * 64, "b" * 64
OURS = built.users(())
ANY = f"{KEY}/any"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(f"{tmp_path}/cache")
    found.prepare()
    return found


def keep(store: Store, tmp_path: Path, name: str = ANY, content: bytes = b"wheel") -> built.Built:
    """Keep a file as if it was a wheel that has just been built."""
    wheel = tmp_path / "demo-1.0-py3-none-any.whl"
    wheel.write_bytes(content)
    log = tmp_path / "build.log"
    log.write_text("built\n")
    return built.keep(store, name, str(wheel), SHA, log=str(log), facts={"host": "node1"}, trusted=OURS)


def test_what_is_kept_is_found(store: Store, tmp_path: Path) -> None:
    """With its log and with what is noted of it; nothing is left in tmp."""
    kept = keep(store, tmp_path)
    found = built.find(store, KEY, ("other", "any"), OURS)
    assert found == kept == built.Built(f"{store.built}/{ANY}/demo-1.0-py3-none-any.whl", SHA)
    assert Path(found.path).read_bytes() == b"wheel"
    assert Path(f"{store.built}/{ANY}/log").read_text() == "built\n"
    assert records.load(f"{store.built}/{ANY}/record")["host"] == "node1"
    assert os.listdir(store.tmp) == []
    assert built.find(store, KEY, ("other",), OURS) is None
    assert built.find(store, "c" * 64, ("any",), OURS) is None


def test_the_first_stays(store: Store, tmp_path: Path) -> None:
    """Whoever comes second uses what is there: others may have installed it already."""
    first = keep(store, tmp_path)
    assert keep(store, tmp_path, content=b"another") == first
    assert Path(first.path).read_bytes() == b"wheel"
    assert os.listdir(store.tmp) == []


def test_what_is_of_others_does_not_count(store: Store, tmp_path: Path) -> None:
    """A wheel runs as whoever installs it: of a user who is not trusted, none is taken, and a new one makes room."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file to somebody else")
    kept = keep(store, tmp_path)
    for path in (kept.path, f"{store.built}/{ANY}/record", f"{store.built}/{ANY}"):
        os.chown(path, 12345, -1, follow_symlinks=False)
        assert built.find(store, KEY, ("any",), OURS) is None
        assert built.find(store, KEY, ("any",), built.users(["12345"])) is not None
        os.chown(path, 0, -1)
    os.chown(kept.path, 12345, -1)
    keep(store, tmp_path, content=b"ours")
    assert Path(kept.path).read_bytes() == b"ours"


def test_links_do_not_count(store: Store, tmp_path: Path) -> None:
    """A link of ours may lead to a file of somebody else's."""
    kept = keep(store, tmp_path)
    os.rename(kept.path, tmp_path / "elsewhere.whl")
    os.symlink(tmp_path / "elsewhere.whl", kept.path)
    assert built.find(store, KEY, ("any",), OURS) is None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"filename": "../../x.whl", "sha256": SHA},
        {"filename": "x.txt", "sha256": SHA},
        {"filename": "demo-1.0-py3-none-any.whl", "sha256": "zz"},
        {"filename": 7, "sha256": None},
    ],
)
def test_a_senseless_record_counts_for_nothing(store: Store, tmp_path: Path, value: dict[str, object]) -> None:
    """Whatever it says, no other file is taken."""
    keep(store, tmp_path)
    atomic.write(f"{store.built}/{ANY}/record", records.dump({"kept_as": ANY, **value}), mode=0o444)
    assert built.find(store, KEY, ("any",), OURS) is None


def test_users() -> None:
    """One's own, root's, and those that are named, by name or number; one that there is not is an error."""
    assert built.users(["root", "4711"]) == {os.geteuid(), 0, 4711}
    with pytest.raises(UsageError, match="no user `nobody-of-that-name`"):
        built.users(["nobody-of-that-name"])


def test_who_builds(store: Store) -> None:
    """Others are told who builds what, and for how long."""
    assert built.builder(store, KEY, "demo 1.0") == "waiting for another process, which builds demo 1.0"
    built.announce(store, KEY, "demo 1.0")
    said = built.builder(store, KEY, "demo 1.0")
    assert said.startswith(f"waiting for pid {os.getpid()} on ")
    assert said.endswith("which has been building demo 1.0 for 0 s")
    built.withdraw(store, KEY)
    assert os.listdir(store.tmp) == []


def test_a_failure_is_shared_with_those_who_waited(store: Store, tmp_path: Path) -> None:
    """And with nobody else: whoever comes later tries again; and it is forgotten once it has been built."""
    before = built.failure(store, KEY)
    built.fail(store, KEY, BuildError("demo 1.0", "no compiler", log="/x/y.log", hint="load one"))
    shared = built.shared_failure(store, KEY, before, OURS)
    assert shared is not None
    assert (shared.package, shared.problem, shared.log, shared.hint) == (
        "demo 1.0",
        "no compiler",
        "/x/y.log",
        "load one; `less /x/y.log` shows all that the build has said",
    )
    assert built.shared_failure(store, KEY, built.failure(store, KEY), OURS) is None
    assert built.shared_failure(store, KEY, before, frozenset()) is None
    keep(store, tmp_path)
    assert built.failure(store, KEY) == ""


def test_nobody_else_can_have_written_it(store: Store, tmp_path: Path) -> None:
    """A group that shares the cache writes to nothing that counts, nor moves it to another key."""
    os.chmod(store.root, 0o2770)
    kept = keep(store, tmp_path)
    record = f"{store.built}/{ANY}/record"
    for path in (kept.path, record):
        assert os.stat(path).st_mode & 0o222 == 0
        os.chmod(path, 0o664)
        assert built.find(store, KEY, ("any",), OURS) is None
        os.chmod(path, 0o444)
    assert built.find(store, KEY, ("any",), OURS) == kept
    os.rename(f"{store.built}/{KEY}", f"{store.built}/{'c' * 64}")
    assert built.find(store, "c" * 64, ("any",), OURS) is None
