"""A fetch that is killed, a repository that is damaged, what git leaves running: the next sync is none the worse."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.building.git import check_out
from envsync.errors import FetchError
from envsync.lockfile.target import GIT, Source
from envsync.locks import flock
from envsync.store.store import Store
from envsync.system import processes
from tests import needs
from tests.git_repositories import DYNAMIC, commit, git, new_repository, serving

pytestmark = needs.GIT
ROOT = Path(__file__).parent.parent.parent.parent
MOMENTS = 6
FETCHER = """\
import sys
sys.path.insert(0, {root!r})
from envsync.building.git import check_out
from envsync.lockfile.target import GIT, Source
from envsync.store.store import Store

check_out(
    Source(GIT, {url!r}, {commit!r}), {into!r}, store=Store({cache!r}), package="thing", offline=False, log={log!r},
    checkpoint=lambda: None,
)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    return store


@pytest.fixture
def bring(tmp_path: Path, store: Store) -> Callable[..., Path]:
    """Return a function that checks a commit out, and returns the tree."""

    def bring(url: str, commit: str, into: str, *, offline: bool = False, checkpoint: object = lambda: None) -> Path:
        check_out(
            Source(GIT, url, commit),
            str(tmp_path / into),
            store=store,
            package="thing",
            offline=offline,
            log=str(tmp_path / "log"),
            checkpoint=checkpoint,  # type: ignore[arg-type]
        )
        return tmp_path / into

    return bring


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of some hundred objects, whose history is needed."""
    at = new_repository(tmp_path_factory.mktemp("served") / "thing", **{"pyproject.toml": DYNAMIC})
    git(at, "tag", "v1")
    chance = random.Random(1)
    for number in range(60):
        files = {f"d{chance.randrange(9)}/f{chance.randrange(99)}": chance.randbytes(6000).hex() for _ in range(4)}
        commit(at, **files, **{"number": str(number)})
    assert int(git(at, "rev-list", "--count", "--objects", "HEAD")) > 400
    return at


def database(store: Store) -> Path:
    (found,) = Path(store.root, "v1/git").iterdir()
    return found


def test_a_fetch_that_is_killed_at_any_moment(
    bring: Callable[..., Path], large: Path, tmp_path: Path, store: Store
) -> None:
    """Killed at random moments of a fetch, again and again in one cache: the next one gives the whole history."""
    wanted = git(large, "rev-parse", "HEAD")
    words = {"root": str(ROOT), "cache": store.root, "commit": wanted, "log": str(tmp_path / "log")}
    chance = random.Random(2)
    with serving(large.parent) as server:
        url = f"http://{server.place}/thing/.git"
        begin = time.monotonic()
        bring(url, wanted, "whole")
        seconds = time.monotonic() - begin
        ends = set()
        for moment in range(MOMENTS):
            database(store).rename(tmp_path / f"old{moment}")
            into = str(tmp_path / f"killed{moment}")
            code = FETCHER.format(**words, url=url, into=into)
            process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.2, 0.4 + seconds))
            process.kill()
            ends.add(process.wait())
            tree = bring(url, wanted, f"tree{moment}")
            assert git(tree, "describe", "--tags", "--long").startswith("v1-60-g")
            assert git(tree, "status", "--porcelain") == ""
            git(tree, "fsck", "--full", "--strict")
    assert -signal.SIGKILL in ends <= {0, -signal.SIGKILL}


def test_what_a_dead_fetch_has_left_goes(bring: Callable[..., Path], large: Path, store: Store) -> None:
    """Locks of git and parts of packs do not stop the next fetch, and do not stay."""
    wanted = git(large, "rev-parse", "HEAD~1")
    bring(large.as_uri(), wanted, "one")
    left = [database(store) / name for name in ("shallow.lock", "packed-refs.lock", "objects/pack/tmp_pack_x")]
    left.append(database(store) / f"refs/envsync/whole/{git(large, 'rev-parse', 'HEAD')}.lock")
    for path in left:
        path.write_bytes(b"half")
    bring(large.as_uri(), git(large, "rev-parse", "HEAD"), "two")
    assert [path for path in left if path.exists()] == []


@pytest.mark.parametrize("harm", ["objects", "half a pack", "an index", "HEAD", "config"])
def test_a_damaged_repository_is_made_anew(bring: Callable[..., Path], large: Path, store: Store, harm: str) -> None:
    """What a purge or a crash took from the cache is fetched again, whatever it is."""
    wanted = git(large, "rev-parse", "HEAD~3")
    bring(large.as_uri(), wanted, "one")
    where = database(store)
    if harm in ("HEAD", "config"):
        (where / harm).write_bytes(b"")
    for path in [path for path in (where / "objects").rglob("*") if path.is_file()]:
        path.chmod(0o600)
        if harm == "objects" or (harm == "an index" and path.suffix == ".idx"):
            path.unlink()
        elif harm == "half a pack" and path.suffix == ".pack":
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[: len(content) // 2])
    for number, each in enumerate([wanted, git(large, "rev-parse", "HEAD")]):
        tree = bring(large.as_uri(), each, f"tree{number}")
        assert git(tree, "status", "--porcelain") == ""
        git(tree, "fsck", "--full")


def test_a_damaged_repository_offline_is_told(bring: Callable[..., Path], large: Path, store: Store) -> None:
    """Without network nothing is brought that is not whole, and the error says what to do."""
    wanted = git(large, "rev-parse", "HEAD")
    with serving(large.parent) as server:
        url = f"http://{server.place}/thing/.git"
        bring(url, wanted, "one")
        for path in (database(store) / "objects").rglob("*"):
            if path.is_file():
                path.unlink()
        with pytest.raises(FetchError, match="offline") as caught:
            bring(url, wanted, "two", offline=True)
    assert "envsync sync" in caught.value.hint


def test_what_is_given_up_ends_git(bring: Callable[..., Path], large: Path, tmp_path: Path, store: Store) -> None:
    """What `checkpoint` raises goes on, while git fetches and while another one has the repository."""

    class GivenUpError(Exception):
        pass

    def give_up() -> None:
        raise GivenUpError

    wanted = git(large, "rev-parse", "HEAD")
    with pytest.raises(GivenUpError):
        bring(large.as_uri(), wanted, "one", checkpoint=give_up)
    bring(large.as_uri(), wanted, "two")
    held = flock.acquire_nowait(f"{store.locks}/git-{database(store).name}", shared=False)
    assert held is not None
    seen: list[str] = []

    def look() -> None:
        seen.append("waits")
        if len(seen) == 3:
            raise GivenUpError

    with pytest.raises(GivenUpError):
        bring(large.as_uri(), wanted, "three", checkpoint=look)
    held.release()
    assert [path.name for path in Path(store.tmp).iterdir() if path.name.startswith("git-")] == []
    bring(large.as_uri(), wanted, "four")


def test_a_repository_is_fetched_once_for_all_who_want_it(
    bring: Callable[..., Path], large: Path, tmp_path: Path
) -> None:
    """Eight at once fetch as much as one: the others wait, and find it there."""
    wanted = git(large, "rev-parse", "HEAD")
    with serving(large.parent) as server:
        bring(f"http://{server.place}/thing/.git", wanted, "alone")
        alone = len(server.asked)
        url = f"http://{server.place}/thing/.git/"  # another one, to the cache
        threads = [threading.Thread(target=bring, args=(url, wanted, f"tree{number}")) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.asked) == 2 * alone
    assert {git(tmp_path / f"tree{number}", "rev-parse", "HEAD") for number in range(8)} == {wanted}


@needs.PROC
def test_a_daemon_that_git_leaves_keeps_no_lock(
    bring: Callable[..., Path], large: Path, nobodys_home: Path, tmp_path: Path, store: Store
) -> None:
    """A credential helper that leaves a daemon: it is ended with git, and had no lock of ours."""
    helper = nobodys_home / "helper"
    helper.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        "if sys.argv[1:] == ['get']:\n"
        "    print('username=me\\npassword=hunter2secret', flush=True)\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork():\n"
        "            os._exit(0)\n"
        "        held = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')[:-1]]\n"
        f"        with open({str(tmp_path / 'daemon')!r}, 'w') as file:\n"
        "            file.write('\\n'.join([str(os.getpid()), *held]))\n"
        "        for fd in range(3):\n"
        "            os.close(fd)\n"
        "        time.sleep(600)\n"
        "    os.wait()\n"
    )
    helper.chmod(0o755)
    (nobodys_home / ".gitconfig").write_text(f"[credential]\n\thelper = {helper}\n")
    environment = flock.acquire_nowait(str(tmp_path / "environment.lock"), shared=False)
    assert environment is not None
    with serving(large.parent, password="hunter2secret") as server:
        bring(f"http://{server.place}/thing/.git", git(large, "rev-parse", "HEAD"), "one")
    environment.release()
    again = flock.acquire_nowait(str(tmp_path / "environment.lock"), shared=False)
    assert again is not None
    again.release()
    assert processes.holders(f"{store.locks}/git-{database(store).name}") == []
    pid, *held = (tmp_path / "daemon").read_text().split("\n")
    assert [path for path in held if "lock" in path] == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), signal.SIG_DFL)
