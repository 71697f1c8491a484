"""What is in a bundle: versions that were replaced, what is damaged, what a prune leaves, and who waits for whom."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import pytest
import tomli_w

from envsync.bundling import locking
from envsync.bundling.directory import FORMAT, KEPT_SECONDS, Bundle, existing
from envsync.bundling.keeping import Shelf
from envsync.bundling.pruning import prune
from envsync.bundling.verifying import verified
from envsync.errors import LockFileError, LockingError, UsageError, WaitTimeoutError, WheelError
from envsync.locks import flock
from envsync.system import mounts
from tests import needs
from tests.wheels import artifact, build_wheel, sha256_of

DAY = 86400.0


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    found = Bundle(str(tmp_path / "bundle"))
    found.prepare()
    return found


def put(bundle: Bundle, tmp_path: Path, *versions: str) -> dict[str, str]:
    """Put wheels of `demo` into a bundle, and make a lock file of the last. Returns the places."""
    places = {}
    for version in versions:
        path = build_wheel(tmp_path, "demo", version)
        places[version] = Shelf(bundle).add(artifact(path), path, lambda: None).place
    publish(bundle, places[versions[-1]], versions[-1])
    return places


def publish(bundle: Bundle, place: str, version: str) -> bool:
    digest = sha256_of(f"{bundle.root}/{place}")
    wheel = {"path": place, "hashes": {"sha256": digest}}
    table = {
        "lock-version": "1.0",
        "created-by": "tests",
        "packages": [{"name": "demo", "version": version, "wheels": [wheel]}],
        "tool": {"envsync": {"bundle": {"format": FORMAT}}},
    }
    return bundle.publish(tomli_w.dumps(table).encode())


def text_of(bundle: Bundle) -> bytes:
    return Path(bundle.lock_file).read_bytes()


def be_old(bundle: Bundle, seconds: float) -> None:
    """Let everything look as if it had been written so long ago."""
    then = time.time() - seconds
    for directory, _, names in os.walk(bundle.root):
        for path in (directory, *(f"{directory}/{name}" for name in names)):
            os.utime(path, (then, then))


class TestPublish:
    """pylock.toml is the bundle, and each that there has been is kept."""

    def test_the_same_again_is_no_change(self, bundle: Bundle, tmp_path: Path) -> None:
        """The file stays the very one, so that no node looks at it anew."""
        places = put(bundle, tmp_path, "1.0")
        before = os.stat(bundle.lock_file)
        assert not publish(bundle, places["1.0"], "1.0")
        after = os.stat(bundle.lock_file)
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)

    def test_versions(self, bundle: Bundle, tmp_path: Path) -> None:
        """One that is replaced counts from then on, however old it was."""
        put(bundle, tmp_path, "1.0")
        first = text_of(bundle)
        be_old(bundle, 30 * DAY)
        put(bundle, tmp_path, "2.0")
        kept = {path.read_bytes(): path.stat().st_mtime for path in Path(bundle.versions).iterdir()}
        assert set(kept) == {first, text_of(bundle)}
        assert kept[first] > time.time() - DAY

    def test_one_that_nobody_has_kept(self, bundle: Bundle, tmp_path: Path) -> None:
        """Somebody has removed the versions: the present one is kept again before it is replaced."""
        put(bundle, tmp_path, "1.0")
        first = text_of(bundle)
        for path in Path(bundle.versions).iterdir():
            path.unlink()
        put(bundle, tmp_path, "2.0")
        assert first in {path.read_bytes() for path in Path(bundle.versions).iterdir()}


class TestKeep:
    """Wheels are what the lock file says, or not there."""

    def test_another_wheel(self, bundle: Bundle, tmp_path: Path) -> None:
        """Nothing of it is left."""
        path = build_wheel(tmp_path, "demo", "1.0")
        wanted = artifact(path, hashes={"sha256": "0" * 64})
        with pytest.raises(WheelError, match="sha256"):
            Shelf(bundle).add(wanted, path, lambda: None)
        assert os.listdir(bundle.wheels) == os.listdir(bundle.tmp) == []

    def test_one_that_was_damaged(self, bundle: Bundle, tmp_path: Path) -> None:
        """It counts as absent, and the right one takes its place."""
        path = build_wheel(tmp_path, "demo", "1.0")
        place = Path(bundle.root, put(bundle, tmp_path, "1.0")["1.0"])
        assert Shelf(bundle).find(artifact(path)) is not None
        place.chmod(0o600)
        place.write_bytes(b"#" * place.stat().st_size)
        shelf = Shelf(bundle)
        assert shelf.find(artifact(path)) is None
        shelf.add(artifact(path), path, lambda: None)
        assert Shelf(bundle).find(artifact(path)) is not None

    def test_nobody_may_write_to_it(self, bundle: Bundle, tmp_path: Path) -> None:
        """What nodes share is not changed by mistake."""
        place = put(bundle, tmp_path, "1.0")["1.0"]
        assert os.stat(f"{bundle.root}/{place}").st_mode & 0o222 == 0


class TestVerify:
    """Each kind of damage is found, in what counts."""

    @pytest.mark.parametrize(
        ("kind", "problem"),
        [
            ("gone", "missing"),
            ("other", "sha256"),
            ("short", "sha256"),
            ("directory", "not a file"),
            ("link", "not a file"),
        ],
    )
    @pytest.mark.parametrize("former", [False, True])
    def test_damage(self, bundle: Bundle, tmp_path: Path, kind: str, problem: str, *, former: bool) -> None:
        """Of the present version, and of one that nodes may still use."""
        place = put(bundle, tmp_path, "1.0")["1.0"]
        if former:
            put(bundle, tmp_path, "2.0")
        assert verified(bundle, text_of(bundle)).damage == ()
        path = Path(bundle.root, place)
        path.chmod(0o600)
        content = path.read_bytes()
        path.unlink()
        if kind == "other":
            path.write_bytes(b"#" + content[1:])
        elif kind == "short":
            path.write_bytes(content[:-1])
        elif kind == "directory":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(build_wheel(tmp_path, "demo", "1.0"))
        found = verified(bundle, text_of(bundle))
        assert [item.path for item in found.damage] == [place]
        assert problem in found.damage[0].problem
        assert found.wheels == 1 + former

    def test_a_version_that_is_damaged(self, bundle: Bundle, tmp_path: Path) -> None:
        """Nobody knows what it needs."""
        put(bundle, tmp_path, "1.0")
        next(Path(bundle.versions).iterdir()).write_text("nonsense")
        assert [item.path.partition("/")[0] for item in verified(bundle, text_of(bundle)).damage] == ["versions"]

    @pytest.mark.parametrize(
        "path", ["../../etc/passwd", "/etc/passwd", f"wheels/{'0' * 16}/demo-1.0-py3-none-any.whl"]
    )
    def test_a_lock_file_that_leads_elsewhere(self, bundle: Bundle, tmp_path: Path, path: str) -> None:
        """It names a file that is not where a bundle has it."""
        place = put(bundle, tmp_path, "1.0")["1.0"]
        text = text_of(bundle).replace(place.encode(), path.encode())
        with pytest.raises(LockFileError):
            verified(bundle, text)

    def test_no_bundle(self, tmp_path: Path) -> None:
        """A directory with another lock file is none."""
        (tmp_path / "pylock.toml").write_text('lock-version = "1.0"\ncreated-by = "x"\npackages = []\n')
        with pytest.raises(UsageError, match="no bundle"):
            existing(str(tmp_path))


class TestPrune:
    """What was replaced seven days ago goes, and nothing else."""

    @pytest.mark.parametrize(("days", "stays"), [(6, True), (8, False)])
    def test_seven_days(self, bundle: Bundle, tmp_path: Path, days: int, *, stays: bool) -> None:
        """Counted from when it was replaced. What the present one names stays, however old it is."""
        first = put(bundle, tmp_path, "1.0")["1.0"]
        second = put(bundle, tmp_path, "2.0")["2.0"]
        be_old(bundle, days * DAY)
        pruned = prune(bundle, text_of(bundle), dry_run=True)
        assert pruned.wheels == (() if stays else (first,))
        assert prune(bundle, text_of(bundle)) == pruned
        assert os.path.exists(f"{bundle.root}/{first}") == stays
        assert os.path.exists(f"{bundle.root}/{second}")
        assert len(os.listdir(bundle.versions)) == 1 + stays
        assert len(os.listdir(bundle.wheels)) == 1 + stays
        assert verified(bundle, text_of(bundle)).damage == ()

    def test_the_present_one_was_a_former_one(self, bundle: Bundle, tmp_path: Path) -> None:
        """Whoever goes back to it has all that it needs."""
        places = put(bundle, tmp_path, "1.0", "2.0")
        be_old(bundle, 8 * DAY)
        publish(bundle, places["1.0"], "1.0")
        prune(bundle, text_of(bundle))
        assert verified(bundle, text_of(bundle)).damage == ()
        assert os.path.exists(f"{bundle.root}/{places['2.0']}")  # it was the present one until now

    def test_what_a_writer_is_about_to_name(self, bundle: Bundle, tmp_path: Path) -> None:
        """It was asked for: that alone keeps it, for where no lock works."""
        first = put(bundle, tmp_path, "1.0")["1.0"]
        put(bundle, tmp_path, "2.0")
        be_old(bundle, 8 * DAY)
        assert Shelf(bundle).find(artifact(build_wheel(tmp_path, "demo", "1.0"))) is not None
        assert prune(bundle, text_of(bundle)).wheels == ()
        assert os.path.exists(f"{bundle.root}/{first}")

    def test_a_version_that_is_damaged(self, bundle: Bundle, tmp_path: Path) -> None:
        """Then nobody knows what is needed, and nothing goes."""
        first = put(bundle, tmp_path, "1.0")["1.0"]
        put(bundle, tmp_path, "2.0")
        be_old(bundle, KEPT_SECONDS + DAY)
        Path(bundle.versions, "0" * 16 + ".toml").write_text("nonsense")
        with pytest.raises(LockFileError) as caught:
            prune(bundle, text_of(bundle))
        assert "ls -la" in caught.value.hint
        assert os.path.exists(f"{bundle.root}/{first}")

    def test_what_is_not_ours_stays(self, bundle: Bundle, tmp_path: Path) -> None:
        """Only what has the place of a wheel is looked at."""
        put(bundle, tmp_path, "1.0")
        for path in (Path(bundle.root, "README"), Path(bundle.wheels, "notes")):
            path.write_text("mine")
        be_old(bundle, 30 * DAY)
        assert prune(bundle, text_of(bundle)).wheels == ()
        assert Path(bundle.wheels, "notes").read_text() == "mine"


class TestLock:
    """Who removes waits for who adds, and says so."""

    def test_writers_share(self, bundle: Bundle) -> None:
        """Two add at once; nobody removes meanwhile."""
        said: list[str] = []
        add, remove = partial(locking.adding, bundle, said.append), partial(locking.removing, bundle, said.append)
        with add(), add(), pytest.raises(WaitTimeoutError), remove(timeout=0):
            pass
        with remove(timeout=0), pytest.raises(WaitTimeoutError), add(timeout=0):
            pass

    def test_without_flock(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who adds goes on without; nobody removes."""

        def refuse(*_: object, **__: object) -> None:
            raise LockingError("no flock here")

        monkeypatch.setattr(flock, "acquire_nowait", refuse)
        with locking.adding(bundle, print):
            pass
        with pytest.raises(LockingError), locking.removing(bundle, print):
            pass

    @needs.PROC
    def test_flock_that_stays_within_the_node(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody is waited for, which would not help, and nothing is made."""
        number = os.stat(bundle.root).st_dev
        table = f"30 1 {os.major(number)}:{os.minor(number)} / / rw - nfs server:/ rw,local_lock=flock\n"
        before = os.listdir(bundle.root)
        with monkeypatch.context() as patch:
            patch.setattr(mounts, "read_proc", lambda _: table)
            with pytest.raises(LockingError, match="flock stays on this node"), locking.removing(bundle, print):
                pass
            assert os.listdir(bundle.root) == before
            with locking.adding(bundle, print), pytest.raises(LockingError), locking.removing(bundle, print):
                pass
        with locking.removing(bundle, print, timeout=0):
            pass
