"""Getting many wheels at once: from the store, from files, from the network; and stopping at the first error."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from envsync.errors import (
    EnvsyncError,
    FetchError,
    FilesystemError,
    HashMismatchError,
    NoWheelError,
    WheelError,
)
from envsync.fetching import fetch as module
from envsync.fetching.crew import Keeper
from envsync.fetching.fetch import fetch
from envsync.fetching.gathering import Gathering
from envsync.fetching.halting import HaltedError
from envsync.launch.progress import quiet
from envsync.lockfile.target import Artifact
from envsync.store.archives import Archive
from envsync.store.store import Store
from tests import needs
from tests.unit.fetching.server import File, Server
from tests.wheels import artifact, build_wheel, sha256_of

HEAVY = ("anyio", "asyncio", "concurrent.futures", "email", "httpx2", "installer", "ssl", "unearth", "zipfile")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "cache"))


def build(directory: Path, count: int, size: int = 100) -> list[str]:
    noise = random.Random(count)
    return [
        build_wheel(directory, f"demo{number}", "1.0", {f"demo{number}/data": noise.randbytes(size * (number + 1))})
        for number in range(count)
    ]


def remote(server: Server, wheel: str) -> Artifact:
    """Serve a wheel and describe it as a lock file with URL and sha256 would."""
    plain = artifact(wheel)
    server.files[f"/{plain.filename}"] = File(Path(wheel).read_bytes())
    url = f"{server.url}/{plain.filename}"
    return artifact(wheel, path=None, url=url, size=os.path.getsize(wheel))


def leftovers(store: Store) -> list[str]:
    return os.listdir(store.tmp)


def test_local_wheels_are_added(store: Store, tmp_path: Path) -> None:
    """All wheels are in the store afterwards; the result has their manifests by name, in the order asked."""
    wanted = [artifact(wheel) for wheel in build(tmp_path, 10)][::-1]
    manifests = fetch(wanted, store)
    assert [*manifests] == [item.name for item in wanted]
    for item in wanted:
        assert manifests[item.name] == store.get(item.sha256 or "")
    assert leftovers(store) == []


def test_nothing_is_nothing(store: Store) -> None:
    """No artifacts, no work, and no cache directory made."""
    assert fetch([], store) == {}
    assert not os.path.exists(store.root)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_downloads_and_files_go_together(store: Store, tmp_path: Path, server: Server, workers: int) -> None:
    """Some wheels from the network and some from files, with any number of workers."""
    wheels = build(tmp_path, 8, 20_000)
    wanted = [remote(server, wheel) if number % 2 else artifact(wheel) for number, wheel in enumerate(wheels)]
    assert [*fetch(wanted, store, workers=workers)] == [item.name for item in wanted]
    assert len(server.requests) == 4
    assert leftovers(store) == []


def test_the_slowest_download_is_named(store: Store, tmp_path: Path, server: Server) -> None:
    """Of the downloads that are under way, the one that most is missing of is told, with how much of it has come."""

    class Listener:
        details: ClassVar[list[str]] = []

        def detail(self, text: str) -> None:
            self.details.append(text)
            if text.startswith("demo3 0.1 of 0.2 MB"):
                hold.set()

        def __call__(self, *_: object) -> None:
            pass

    hold = threading.Event()
    wheels = build(tmp_path, 4, 60_000)
    wanted = [remote(server, wheel) for wheel in wheels]
    server.files[f"/{wanted[3].filename}"].hold = hold
    fetch(wanted, store, report=Listener())  # it ends only if it was told
    assert hold.is_set()


def test_what_the_store_has_is_not_asked_for(store: Store, tmp_path: Path, server: Server) -> None:
    """A second time nothing is read or downloaded, even if the places are gone."""
    wheels = build(tmp_path, 4)
    wanted = [artifact(wheels[0]), artifact(wheels[1]), remote(server, wheels[2]), remote(server, wheels[3])]
    first = fetch(wanted, store)
    server.files.clear()
    os.unlink(wheels[0])
    os.unlink(wheels[1])
    assert fetch(wanted, store) == first
    assert fetch(wanted, store, offline=True) == first
    assert len(server.requests) == 2


def test_the_store_may_have_what_has_no_place(store: Store, tmp_path: Path) -> None:
    """An artifact without any place is fine if the store has it."""
    wheel = build_wheel(tmp_path)
    fetch([artifact(wheel)], store)
    assert fetch([artifact(wheel, path=None, missing="no place")], store)["demo"].version == "1.0"


def test_an_alternative_hash_finds_the_wheel(store: Store, tmp_path: Path) -> None:
    """A wheel known by one of several hashes is found if its file name is the one meant, else not."""
    wheel = build_wheel(tmp_path)
    plain = artifact(wheel)
    alternatives = (("sha512", "00"), ("sha256", "0" * 64), ("sha256", plain.sha256 or ""))
    fetch([plain], store)
    nowhere = artifact(wheel, path=None, hashes={}, alternatives=alternatives)
    assert fetch([nowhere], store)["demo"].sha256 == plain.sha256
    with pytest.raises(NoWheelError):
        fetch([artifact(wheel, path=None, hashes={}, alternatives=alternatives, filename="demo-1.0-cp311.whl")], store)


def test_a_file_without_a_hash_is_found_by_its_bytes(store: Store, tmp_path: Path) -> None:
    """A local wheel without a hash is hashed, and unpacked once."""
    wheel = build_wheel(tmp_path)
    first = fetch([artifact(wheel, hashes={})], store)
    identity = os.stat(store.path(first["demo"].sha256)).st_ino
    assert fetch([artifact(wheel, hashes={})], store) == first
    assert os.stat(store.path(first["demo"].sha256)).st_ino == identity


def test_a_wheel_without_a_place_is_reported(store: Store, tmp_path: Path, server: Server) -> None:
    """What is nowhere is reported in the lock file's words, before anything is downloaded."""
    wheels = build(tmp_path, 2)
    wanted = [remote(server, wheels[0]), artifact(wheels[1], path=None, missing="demo1 is only in the stars")]
    with pytest.raises(NoWheelError) as caught:
        fetch(wanted, store)
    assert str(caught.value) == "demo1 is only in the stars"
    with pytest.raises(NoWheelError) as caught:
        fetch(wanted, store, lock_file="/x/pylock.toml")
    assert str(caught.value) == "cannot use lock file `/x/pylock.toml`: demo1 is only in the stars"
    assert server.requests == []
    with pytest.raises(NoWheelError, match=r"demo1 1\.0 is not in the cache"):
        fetch([artifact(wheels[1], path=None)], store)


def test_offline_nothing_is_downloaded(store: Store, tmp_path: Path, server: Server) -> None:
    """Offline, what would have to be downloaded is reported without its credentials; files are used."""
    wheels = build(tmp_path, 2)
    secret = artifact(wheels[0], path=None, url="https://user:secret@host.test/x.whl?token=hidden")
    with pytest.raises(NoWheelError, match=r"offline.*https://host\.test/x\.whl$") as caught:
        fetch([secret], store, offline=True)
    assert caught.value.hint == "run once with the network: `envsync sync --no-offline`"
    assert fetch([artifact(wheels[1])], store, offline=True)


def test_another_wheel_than_meant_is_refused(store: Store, tmp_path: Path) -> None:
    """The store's wheel has to have the name and version that the lock file gives, too."""
    wheel = build_wheel(tmp_path)
    fetch([artifact(wheel)], store)
    with pytest.raises(WheelError, match=r"it is demo 1\.0, but the lock file wants demo 2\.0"):
        fetch([artifact(wheel, version="2.0")], store)


def test_errors_of_wheels_come_before_others(store: Store, tmp_path: Path, server: Server) -> None:
    """Of several errors that happen together, one that says that a wheel is not what it should be is raised."""
    wheels = build(tmp_path, 6)
    wanted = [artifact(wheel) for wheel in wheels]
    wanted[1] = artifact(wheels[1], path=str(tmp_path / "absent.whl"))
    wanted[4] = artifact(wheels[4], hashes={"sha256": "0" * 64})
    store.prepare()
    failures: list[tuple[bool, int, EnvsyncError]] = [
        (True, 1, FilesystemError("open", "x", FileNotFoundError())),
        (False, 4, HashMismatchError("x", "y")),
        (False, 5, WheelError("x", "z")),
    ]
    keeper = Keeper[Archive](lambda *_: None, lambda *_: Archive("", ""), lambda kept: kept, lambda kept: kept)
    gathering = Gathering(wanted, store, quiet, 2, keeper)
    gathering._failures.extend(failures)
    with pytest.raises(HashMismatchError, match="y"):
        gathering.run(())


def test_a_hash_that_only_an_index_says_vouches_for_no_file(store: Store, tmp_path: Path) -> None:
    """A wheel whose RECORD omits a file is refused with it, before and after another lock file has vouched for it."""
    wheel = build_wheel(tmp_path, "demo", "1.0", {"x": ""}, record="")
    by_index = artifact(wheel, locked=())
    assert by_index.sha256 is not None
    with pytest.raises(WheelError, match="`x` is not in its RECORD"):
        fetch([by_index], store)
    assert fetch([artifact(wheel)], store)["demo"].unrecorded
    with pytest.raises(WheelError, match="`x` is not in its RECORD") as caught:
        fetch([by_index], store, offline=True)
    assert f"`pip hash {wheel}`" in str(caught.value.hint)


@pytest.mark.parametrize("known", [True, False])
def test_another_hash_of_the_lock_file_vouches_once_it_is_compared(store: Store, tmp_path: Path, known: bool) -> None:
    """The store knows its entries by sha256 alone, so the wheel is read again to compare what the lock file has."""
    wheel = build_wheel(tmp_path, "demo", "1.0", {"x": ""}, record="")
    pair = ("sha512", hashlib.sha512(Path(wheel).read_bytes()).hexdigest())
    by_index = {"sha256": sha256_of(wheel)} if known else {}
    wanted = artifact(wheel, hashes={**by_index, **dict([pair])}, locked=(pair,))
    for _ in range(2):
        assert fetch([wanted], store)["demo"].unrecorded
    Path(wheel).unlink()
    with pytest.raises(FilesystemError):
        fetch([wanted], store)


@needs.WOKEN
@pytest.mark.parametrize("kind", ["hash", "wheel", "file", "answer"])
def test_an_error_stops_everything_and_leaves_nothing(store: Store, tmp_path: Path, server: Server, kind: str) -> None:
    """The first error cancels the rest: downloads that hang, unpacking that has not begun; tmp is empty."""
    wheels = build(tmp_path, 6, 50_000)
    hold = threading.Event()
    wanted = [remote(server, wheel) for wheel in wheels[:5]]
    for item in wanted[:3]:
        server.files[f"/{item.filename}"].hold = hold
    wanted[:3] = [
        artifact(wheel, path=None, url=item.url, hashes={}) for wheel, item in zip(wheels, wanted[:3], strict=False)
    ]
    bad = wanted[4]
    if kind == "hash":
        server.files[f"/{bad.filename}"].data = server.files[f"/{bad.filename}"].data[:-1] + b"?"
        expected: type[EnvsyncError] = HashMismatchError
    elif kind == "wheel":
        broken = build_wheel(tmp_path, "demo4", "1.0", {"x": ""}, record=b"\xff")
        wanted[4] = remote(server, broken)
        expected = WheelError
    elif kind == "file":
        wanted[4] = artifact(wheels[5], path=str(tmp_path / "absent.whl"))
        expected = FilesystemError
    else:
        del server.files[f"/{bad.filename}"]
        expected = FetchError
    with pytest.raises(expected):
        fetch(wanted, store)
    assert not hold.is_set()
    hold.set()
    assert [name for name in leftovers(store) if not name.endswith(".part")] == []


def test_progress_is_reported(store: Store, tmp_path: Path, server: Server) -> None:
    """Downloads are reported by files and bytes, then unpacking by wheels; both end complete."""
    wheels = build(tmp_path, 6, 100_000)
    wanted = [remote(server, wheel) for wheel in wheels[:4]] + [artifact(wheel) for wheel in wheels[4:]]
    reports: list[tuple[str, int, int, int, int]] = []

    def report(phase: str, done: int, total: int, bytes_done: int = 0, bytes_total: int = 0) -> None:
        reports.append((phase, done, total, bytes_done, bytes_total))

    fetch(wanted, store, report=report)
    size = sum(os.path.getsize(wheel) for wheel in wheels[:4])
    phases = [phase for phase, *_ in reports]
    assert phases == sorted(phases)
    downloading = [entry for entry in reports if entry[0] == "downloading"]
    assert all(entry[2] == 4 and 0 <= entry[3] <= entry[4] == size for entry in downloading)
    assert reports[-1] == ("unpacking", 6, 6, 0, 0)


def test_progress_of_unknown_size(store: Store, tmp_path: Path, server: Server) -> None:
    """If one size is unknown, so is the sum."""
    wheels = build(tmp_path, 2)
    wanted = [remote(server, wheels[0]), remote(server, wheels[1])]
    wanted[1] = artifact(wheels[1], path=None, url=wanted[1].url)
    totals: set[int] = set()
    fetch(wanted, store, report=lambda *entry: totals.add(entry[4] if len(entry) > 4 else 0))
    assert totals == {0}


def test_the_largest_come_first(store: Store, tmp_path: Path) -> None:
    """A large wheel begun last would be waited for by all, so the largest are begun first."""
    wheels = build(tmp_path, 5, 1000)
    order: list[str] = []
    add = store.add

    def note(wheel: str, *args: object, **options: object) -> object:
        order.append(wheel)
        return add(wheel, *args, **options)  # type: ignore[arg-type]

    store.add = note  # type: ignore[method-assign,assignment]
    fetch([artifact(wheel) for wheel in wheels], store, workers=1)
    assert order == wheels[::-1]


def test_fetching_sweeps(store: Store, tmp_path: Path) -> None:
    """What a crash left in tmp more than a day ago is removed when something is fetched."""
    store.prepare()
    os.mkdir(f"{store.tmp}/unpack-old")
    os.utime(f"{store.tmp}/unpack-old", (1, 1))
    fetch([artifact(build_wheel(tmp_path))], store)
    assert leftovers(store) == []


def test_a_damaged_entry_is_fetched_again(store: Store, tmp_path: Path, server: Server) -> None:
    """After a damaged entry was discarded it is fetched like any other."""
    wanted = remote(server, build_wheel(tmp_path))
    first = fetch([wanted], store)
    store.discard(first["demo"].sha256)
    again = fetch([wanted], store)["demo"]
    assert again._replace(mtime=first["demo"].mtime) == first["demo"]


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    """Where no cache can be made, the error names the path."""
    (tmp_path / "file").write_text("")
    wheel = build_wheel(tmp_path)
    with pytest.raises(FilesystemError, match=f"{tmp_path}/file"):
        fetch([artifact(wheel)], Store(str(tmp_path / "file")))


def run(code: str, *args: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, cwd=os.getcwd()
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_what_is_there_costs_no_imports(store: Store, tmp_path: Path) -> None:
    """Neither importing this module nor finding everything in the store imports what only fetching needs."""
    wheel = build_wheel(tmp_path)
    manifest = fetch([artifact(wheel)], store)["demo"]
    code = (
        "import sys\n"
        "from envsync.fetching.fetch import fetch\n"
        "from envsync.store.store import Store\n"
        "from envsync.lockfile.target import Artifact\n"
        "wanted = Artifact('demo', '1.0', 'x.whl', hashes={'sha256': sys.argv[2]})\n"
        "assert fetch([wanted], Store(sys.argv[1]))['demo'].name == 'demo'\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    assert run(code, store.root, manifest.sha256).strip() == "[]"


def test_files_cost_no_network_imports(store: Store, tmp_path: Path) -> None:
    """Wheels from files need no HTTP client."""
    code = (
        "import sys\n"
        "from envsync.fetching.fetch import fetch\n"
        "from envsync.store.store import Store\n"
        "from tests.wheels import artifact\n"
        "fetch([artifact(sys.argv[2])], Store(sys.argv[1]))\n"
        "print([name for name in ('httpx2', 'unearth') if name in sys.modules])\n"
    )
    assert run(code, store.root, build_wheel(tmp_path)).strip() == "[]"


@needs.WOKEN
@pytest.mark.parametrize("place", ["network", "file"])
def test_an_interrupt_stops_at_once_and_leaves_nothing(
    store: Store, tmp_path: Path, server: Server, place: str
) -> None:
    """Control-C ends a fetch that hangs in the network or is unpacking; only what can be continued stays."""
    wheel = build_wheel(tmp_path, files={f"demo/{number}": os.urandom(20_000) for number in range(2000)})
    if place == "network":
        wanted = remote(server, wheel)
        server.files[f"/{wanted.filename}"].hold = threading.Event()
    else:
        wanted = artifact(wheel)
    code = (
        "import json, sys, envsync.wheel.unpack, envsync.fetching.fetch as module\n"
        "from envsync.store.store import Store\n"
        "from envsync.lockfile.target import Artifact\n"
        "write = envsync.wheel.unpack._Writer.write\n"
        "def announce(self, place, checkpoint):\n"
        "    if place.path == 'demo/100':\n"
        "        print('began', flush=True)\n"
        "    return write(self, place, checkpoint)\n"
        "envsync.wheel.unpack._Writer.write = announce\n"
        "try:\n"
        "    module.fetch([Artifact(**json.loads(sys.argv[2]))], Store(sys.argv[1]), workers=1)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.root, json.dumps(wanted._asdict())], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        if place == "network":
            assert server.began.wait(30)
        else:
            assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().endswith("interrupted\n")
    assert process.returncode == 0
    expected = [f"{wanted.sha256}.part"] if place == "network" else []
    assert leftovers(store) == expected
    assert os.listdir(store.wheels) == []


def test_a_killed_download_is_continued_by_the_next_process(store: Store, tmp_path: Path, server: Server) -> None:
    """SIGKILL in the middle of a download costs the next process only the rest."""
    wheel = build_wheel(tmp_path, files={"demo/x": os.urandom(2_000_000)})
    wanted = remote(server, wheel)
    file = server.files[f"/{wanted.filename}"]
    file.hold = threading.Event()
    code = (
        "import json, sys\n"
        "from envsync.fetching.fetch import fetch\n"
        "from envsync.store.store import Store\n"
        "from envsync.lockfile.target import Artifact\n"
        "fetch([Artifact(**json.loads(sys.argv[2]))], Store(sys.argv[1]), report=lambda *_: print(_, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, store.root, json.dumps(wanted._asdict())], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()).startswith("('downloading', 0, 1, 0, "):
            pass  # nothing has come yet
        assert line.startswith("('downloading', 0, 1, ")
        process.kill()
    file.hold.set()
    file.hold = None
    (part,) = leftovers(store)
    done = os.path.getsize(f"{store.tmp}/{part}")
    assert 0 < done < os.path.getsize(wheel)
    assert fetch([wanted], store)["demo"].sha256 == hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    assert server.ranges() == [None, f"bytes={done}-"]
    assert leftovers(store) == []


def test_an_error_has_no_context_of_others(store: Store, tmp_path: Path, server: Server) -> None:
    """Its traceback begins with what is wrong, not with what envsync does about threads."""
    wanted = remote(server, build_wheel(tmp_path))._replace(hashes={"sha256": "0" * 64})
    with pytest.raises(HashMismatchError) as caught:
        fetch([wanted], store)
    link: BaseException | None = caught.value
    while link is not None:
        assert not isinstance(link, HaltedError)
        assert not isinstance(link, BaseExceptionGroup)
        link = link.__cause__ or link.__context__


def test_what_nobody_expects_comes_alone(
    store: Store, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is no error of envsync's comes out as itself, not as what becomes of a thread."""
    monkeypatch.setattr(module, "_find", lambda *_: 1 / 0 if threading.current_thread() is not main else None)
    main = threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        fetch([remote(server, build_wheel(tmp_path))], store)


def test_reports_come_where_it_was_called(store: Store, tmp_path: Path, server: Server) -> None:
    """A program's own function is called in its own thread, whatever threads download."""
    threads = set()
    fetch([remote(server, build_wheel(tmp_path))], store, report=lambda *_: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


LISTENING = """\
import json, sys
from envsync.fetching.fetch import fetch
from envsync.store.store import Store
from envsync.launch import signals
from envsync.lockfile.target import Artifact
from tests import needs

class Deaf:
    def __del__(self):
        import os, signal
        os.kill(os.getpid(), signal.SIGTERM)

def report(*_):
    if {deaf}:
        sys.unraisablehook = lambda _: None
        Deaf()
    print(*_, flush=True)

signals.listen()
try:
    fetch([Artifact(**json.loads(sys.argv[2]))], Store(sys.argv[1]), report=report)
except KeyboardInterrupt as interrupt:
    signals.die_of(interrupt)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_a_signal_while_the_server_is_silent(store: Store, tmp_path: Path, server: Server, name: str) -> None:
    """It ends by the signal, and says nothing, though nothing comes from the network any more."""
    number = signal.Signals[name]
    done = end_while_silent(store, tmp_path, server, LISTENING.format(deaf=False), number)
    assert done == (-number, "")


def test_a_signal_that_a_destructor_swallows(store: Store, tmp_path: Path, server: Server) -> None:
    """What is raised in a destructor is lost, the signal is not."""
    done = end_while_silent(store, tmp_path, server, LISTENING.format(deaf=True), None)
    assert done == (-signal.SIGTERM, "")


def end_while_silent(
    store: Store, tmp_path: Path, server: Server, code: str, number: signal.Signals | None
) -> tuple[int, str]:
    """Fetch from a server that stops half way; send a signal then. Returns the status and what is said on stderr."""
    wanted = remote(server, build_wheel(tmp_path, files={"demo/x": os.urandom(200_000)}))
    server.files[f"/{wanted.filename}"].hold = threading.Event()
    words = [sys.executable, "-c", code, store.root, json.dumps(wanted._asdict())]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        if number is not None:
            assert server.began.wait(30)
            process.send_signal(number)
        _, said = process.communicate(timeout=30)
    return process.returncode, said
