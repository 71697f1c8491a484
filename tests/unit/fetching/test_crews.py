"""Children that download: they do what threads do, nothing is lost if they are killed, and none is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from envsync.lockfile.target import Artifact
from envsync.locks.wheel_lock import Turn
from envsync.store.store import Store
from tests import needs
from tests.unit.fetching.server import File, Server
from tests.wheels import artifact, build_wheel, sha256_of

pytestmark = needs.PROC

PROGRAM = """\
import json, os, sys, threading
import envsync.wheel.unpack as unpacking
from envsync.errors import EnvsyncError
from envsync.fetching.fetch import fetch, fetch_archives
from envsync.launch import signals
from envsync.lockfile import retrying
from envsync.lockfile.target import Artifact
from envsync.store.store import Store

retrying.BACKOFF = 0.0
parent = os.getpid()
forked = []
os.register_at_fork(after_in_parent=lambda: forked.append(1))

def children():
    return open(f"/proc/self/task/{parent}/children").read().split()

def report(*said):
    pass

get = fetch
# EXTRA
store = Store(sys.argv[1])
artifacts = [Artifact(**fields) for fields in json.loads(sys.argv[2])]
before = os.listdir("/proc/self/fd")
signals.listen()
try:
    found = get(artifacts, store, report=report)
    said = {"found": {name: kept.sha256 for name, kept in found.items()}}
except EnvsyncError as error:
    said = {"error": [type(error).__name__, str(error), error.hint]}
except KeyboardInterrupt as interrupt:
    signals.die_of(interrupt)
except Exception as error:
    said = {"error": [type(error).__name__, str(error), None]}
said |= {"forked": len(forked), "left": len(children()), "descriptors": before == os.listdir("/proc/self/fd")}
print(json.dumps(said))
"""
IN_THREADS = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
"""By which a process has other threads, so that it may not fork."""
TELLING = "\ndef report(*said):\n    print(json.dumps(said), flush=True)"
NO_FORK = "import posix\ndef fork():\n    raise BlockingIOError\nposix.fork = fork"
ONCE = """\
write = unpacking._Writer.write
def strike(self, place, checkpoint):
    if place.path == "demo3/50" and os.getpid() != parent:
        try:
            os.close(os.open(sys.argv[1] + "/struck", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), {number})
    return write(self, place, checkpoint)
unpacking._Writer.write = strike
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "cache"))
    made.prepare()
    return made


@pytest.fixture
def wanted(tmp_path: Path, server: Server) -> list[Artifact]:
    """Return four wheels that a server has; the last is the largest."""
    return [remote(server, wheel) for wheel in wheels(tmp_path)]


def wheels(directory: Path) -> list[str]:
    noise = random.Random(5)
    return [
        build_wheel(
            directory, f"demo{n}", "1.0", {f"demo{n}/{number}": noise.randbytes(1000 * (n + 1)) for number in range(99)}
        )
        for n in range(4)
    ]


def remote(server: Server, wheel: str, **changes: Any) -> Artifact:
    plain = artifact(wheel)
    server.files[f"/{plain.filename}"] = File(Path(wheel).read_bytes())
    fields = {"path": None, "url": f"{server.url}/{plain.filename}", "size": os.path.getsize(wheel), **changes}
    return artifact(wheel, **fields)


@contextmanager
def running(store: Store, wanted: list[Artifact], extra: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run the program, in a group of its own."""
    words = [sys.executable, "-c", PROGRAM.replace("# EXTRA", extra), store.root]
    words.append(json.dumps([item._asdict() for item in wanted]))
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def said_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    return dict(json.loads(said))


def run(store: Store, wanted: list[Artifact], extra: str = "") -> dict[str, Any]:
    with running(store, wanted, extra) as process:
        return said_by(process)


def whole(wanted: list[Artifact]) -> dict[str, str | None]:
    return {item.name: item.sha256 for item in wanted}


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def whoever_downloads(pid: int, name: str) -> int:
    """Return the child of a process that has a file of that name open."""
    for child in children_of(pid):
        for fd in os.listdir(f"/proc/{child}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{child}/fd/{fd}").endswith(name):
                    return child
    raise AssertionError("nobody does")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def are_locks_free(store: Store) -> bool:
    import fcntl

    for name in os.listdir(store.locks):
        with open(f"{store.locks}/{name}") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


def test_children_get_all(store: Store, wanted: list[Artifact]) -> None:
    """They are heard, waited for, and nothing of them is left: no process, no descriptor, no file, no lock."""
    done = run(store, wanted)
    assert done["found"] == whole(wanted)
    assert done["forked"] >= 2
    assert (done["left"], done["descriptors"]) == (0, True)
    assert os.listdir(store.tmp) == []
    assert are_locks_free(store)


@pytest.mark.parametrize("extra", [IN_THREADS, NO_FORK])
def test_where_none_may_be_had(store: Store, wanted: list[Artifact], extra: str) -> None:
    """Threads of the process get all."""
    done = run(store, wanted, extra)
    assert (done["found"], done["forked"]) == (whole(wanted), 0)


def test_children_get_archives(store: Store, tmp_path: Path, server: Server) -> None:
    """Archives of sources come in the same way, and wheels whose hash is not known."""
    wanted = []
    for name in ("one", "two", "three"):
        archive = tmp_path / f"{name}-1.0.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(__file__, f"{name}-1.0/x.py")
        server.files[f"/{archive.name}"] = File(archive.read_bytes())
        hashes = {} if name == "two" else {"sha256": sha256_of(str(archive))}
        wanted.append(Artifact(name, "1.0", archive.name, hashes=hashes, url=f"{server.url}/{archive.name}"))
    done = run(store, wanted, "get = fetch_archives")
    assert done["found"] == {item.name: sha256_of(f"{tmp_path}/{item.filename}") for item in wanted}
    assert done["forked"] >= 2


def wrong_bytes(server: Server, path: str) -> None:
    server.files[path].data = server.files[path].data[:-1] + b"?"


def wrong_size(server: Server, path: str) -> None:
    server.files[path].data += b"?"


def nowhere(server: Server, path: str) -> None:
    del server.files[path]


def forbidden(server: Server, path: str) -> None:
    server.files[path].auth = ("user", "password")


def always_cut(server: Server, path: str) -> None:
    server.files[path].cuts = [1000] * 5


@pytest.mark.parametrize("spoil", [wrong_bytes, wrong_size, nowhere, forbidden, always_cut])
def test_an_error_is_the_same(
    store: Store, wanted: list[Artifact], server: Server, spoil: Callable[[Server, str], None]
) -> None:
    """Its kind, its words and its hint do not tell whether a child or a thread met it, and it ends all others."""
    spoil(server, f"/{wanted[1].filename}")
    server.files[f"/{wanted[3].filename}"].hold = threading.Event()  # never set: nobody may wait for it
    in_children = run(store, wanted)
    assert in_children["forked"] >= 2
    assert in_children["left"] == 0
    if spoil is always_cut:
        spoil(server, f"/{wanted[1].filename}")
    in_threads = run(Store(f"{store.root}-of-threads"), wanted, IN_THREADS)
    assert in_threads["error"] == in_children["error"]
    kind = {wrong_bytes: "HashMismatchError", wrong_size: "WheelError"}.get(spoil, "FetchError")
    assert in_children["error"][0] == kind
    assert are_locks_free(store)


def test_what_nobody_expects_is_raised_here(store: Store, wanted: list[Artifact]) -> None:
    """A defect that a child meets is met by its parent, too, and comes out as itself."""
    done = run(store, wanted, "Store.add = lambda *_, **__: 1 / 0")
    assert done["error"][0] == "ZeroDivisionError"


def test_a_child_that_is_killed_in_a_download(store: Store, wanted: list[Artifact], server: Server) -> None:
    """The parent goes on where it was."""
    file = server.files[f"/{wanted[3].filename}"]
    file.hold = threading.Event()
    part = f"{store.tmp}/{wanted[3].sha256}.part"
    with running(store, wanted) as process:
        assert server.began.wait(60)
        until(lambda: len(os.listdir(store.wheels)) == 3 and os.path.getsize(part) > 0)
        os.kill(whoever_downloads(process.pid, part), signal.SIGKILL)
        file.hold.set()
        done = said_by(process)
    assert (done["found"], done["descriptors"]) == (whole(wanted), True)
    ranges = [headers.get("range") for path, headers in server.requests if path.endswith(wanted[3].filename)]
    assert ranges[0] is None
    assert str(ranges[1]).startswith("bytes=")
    assert os.listdir(store.tmp) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_is_killed_as_it_unpacks(
    store: Store, wanted: list[Artifact], server: Server, number: signal.Signals
) -> None:
    """The parent has the whole file, and unpacks it; one that may clean up leaves nothing."""
    done = run(store, wanted, ONCE.format(number=int(number)))
    assert os.path.exists(f"{store.root}/struck")
    assert (done["found"], done["left"], done["descriptors"]) == (whole(wanted), 0, True)
    assert [path for path, _ in server.requests].count(f"/{wanted[3].filename}") == 1
    left = os.listdir(store.tmp)
    assert left == [] or (number == signal.SIGKILL and [name.partition("-")[0] for name in left] == ["unpack"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("all_of_them", [False, True])
@pytest.mark.parametrize("extra", ["", IN_THREADS])
def test_a_signal_while_all_wait(
    store: Store, wanted: list[Artifact], server: Server, number: signal.Signals, all_of_them: bool, extra: str
) -> None:
    """Whether the parent alone gets it, or the children, too, as from a terminal: none is left, and no lock."""
    for item in wanted:
        server.files[f"/{item.filename}"].hold = threading.Event()
    with running(store, wanted, extra) as process:
        until(lambda: server.busy == len(wanted))
        children = children_of(process.pid)
        assert bool(children) != bool(extra)
        (os.killpg if all_of_them else os.kill)(process.pid, number)
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints) == (-number, "")
        assert not any(os.path.exists(f"/proc/{child}") for child in children)
        assert are_locks_free(store)
    assert all(name.endswith(".part") for name in os.listdir(store.tmp))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGCONT])
def test_a_child_that_is_stopped(store: Store, wanted: list[Artifact], server: Server, number: signal.Signals) -> None:
    """It is said which, and how to continue it. It does not survive its parent's end, and goes on if it may."""
    for item in wanted:
        server.files[f"/{item.filename}"].hold = threading.Event()
    with running(store, wanted, TELLING) as process:
        until(lambda: server.busy == len(wanted))
        assert process.stdout is not None
        children = children_of(process.pid)
        os.kill(children[0], signal.SIGSTOP)
        said = (
            f"waiting for pid {children[0]}, which is stopped: continue it with `kill -CONT {children[0]}`, or end it"
        )
        while json.loads(process.stdout.readline())[0] != said:
            pass
        if number == signal.SIGINT:
            process.send_signal(number)
            assert process.communicate(timeout=60)[1] == ""
            assert not any(os.path.exists(f"/proc/{child}") for child in children)
        else:
            os.kill(children[0], number)
            for item in wanted:
                hold = server.files[f"/{item.filename}"].hold
                assert hold is not None
                hold.set()
            assert json.loads(process.communicate(timeout=60)[0].splitlines()[-1])["found"] == whole(wanted)
    assert are_locks_free(store)


def test_many_open_files(store: Store, wanted: list[Artifact]) -> None:
    """A program may have more than select(2) knows."""
    extra = """\
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
many = [os.dup(0) for _ in range(1100)]"""
    done = run(store, wanted, extra)
    assert (done.get("found"), done["left"], done["descriptors"]) == (whole(wanted), 0, True), done
    assert done["forked"] >= 2


def test_what_another_process_leaves_is_not_waited_for_any_more(
    store: Store, wanted: list[Artifact], server: Server
) -> None:
    """As soon as it comes, that is what is said."""
    hold = server.files[f"/{wanted[3].filename}"].hold = threading.Event()
    lock = Turn(store, wanted[3].sha256).take()
    assert lock is not None
    with running(store, wanted, TELLING) as process:
        assert process.stdout is not None
        while not (said := json.loads(process.stdout.readline())[0]).startswith("waiting"):
            pass
        assert said == f"waiting for pid {os.getpid()}, which fetches demo3"
        lock.release()
        while (said := json.loads(process.stdout.readline()))[0].startswith("waiting"):
            pass
        hold.set()
        assert json.loads(process.communicate(timeout=60)[0].splitlines()[-1])["found"] == whole(wanted)
    assert said[0] == "downloading"


def test_a_child_is_not_who_is_waited_for(store: Store, wanted: list[Artifact], server: Server) -> None:
    """Others are told of the process that somebody has started, and that can be ended."""
    for item in wanted:
        server.files[f"/{item.filename}"].hold = threading.Event()
    with running(store, wanted) as process:
        until(lambda: server.busy == len(wanted))
        assert {Turn(store, item.sha256).holder() for item in wanted} == {f"pid {process.pid}"}


def test_children_of_a_parent_that_is_killed(store: Store, wanted: list[Artifact], server: Server) -> None:
    """They end by themselves, and whoever comes next goes on where they were."""
    for item in wanted:
        server.files[f"/{item.filename}"].hold = threading.Event()
    with running(store, wanted) as process:
        until(lambda: server.busy == len(wanted) and len(os.listdir(store.tmp)) == len(wanted))
        process.kill()
        until(lambda: are_locks_free(store))
    for item in wanted:
        hold = server.files[f"/{item.filename}"].hold
        assert hold is not None
        hold.set()
    assert run(store, wanted)["found"] == whole(wanted)
    assert os.listdir(store.tmp) == []


@pytest.mark.parametrize("extra", ["", IN_THREADS])
def test_what_a_report_raises_ends_all(store: Store, wanted: list[Artifact], server: Server, extra: str) -> None:
    """As a `Coordinator` does whose last caller has left."""
    for item in wanted:
        server.files[f"/{item.filename}"].hold = threading.Event()
    raising = "\ndef report(*said):\n    if said[3:4] > (0,):\n        raise OSError('enough')"
    done = run(store, wanted, extra + raising)
    assert done["error"][:2] == ["OSError", "enough"]
    assert (bool(done["forked"]), done["left"], done["descriptors"]) == (not extra, 0, True)
    assert are_locks_free(store)


def test_bytes_are_reported(store: Store, wanted: list[Artifact], server: Server) -> None:
    """What children receive is counted by their parent: all of it, in the end."""
    hold = server.files[f"/{wanted[3].filename}"].hold = threading.Event()
    half = (wanted[3].size or 0) // 2
    others = sum(item.size or 0 for item in wanted[:3])
    with running(store, wanted, TELLING) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())[:4] != ["downloading", 3, 4, others + half]:
            pass
        hold.set()
        last = process.communicate(timeout=60)[0].splitlines()
    assert json.loads(last[-2]) == ["unpacking", 4, 4]
