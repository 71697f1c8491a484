"""How files come from the store: by what is asked for where that works, else by what comes next, said once."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.errors import FilesystemError
from envsync.launch.progress import quiet
from envsync.library import blocking
from envsync.staging import link_modes
from envsync.staging.bring import fill_as_usual
from envsync.staging.link import Linker, PartJob
from envsync.staging.link_modes import CLONE, COPY, HARDLINK, MODES, Pourer, Ways, conclude
from envsync.system import native
from envsync.wheel.manifest import Directory, Manifest, Rows
from tests import needs
from tests.conftest import envsync_command
from tests.environments import FIXTURES, leftovers, site_packages, unverified
from tests.filesystems import mounted
from tests.needs import IS_ROOT

LOCK = FIXTURES / "pylock.toml"


def status(device: int = 1, owner: int | None = None) -> os.stat_result:
    uid = os.geteuid() if owner is None else owner
    return os.stat_result((stat.S_IFREG, 1, device, 1, uid, 0, 0, 0, 0, 0))


class TestWays:
    def test_what_is_refused_for_a_filesystem_is_not_tried_again_there(self) -> None:
        """EXDEV holds for all files of a filesystem, and for no other filesystem."""
        told: list[str] = []
        ways = Ways("auto", told.append)
        for way, number in ((CLONE, errno.EOPNOTSUPP), (HARDLINK, errno.EXDEV)):
            assert ways.of(status()) == MODES["auto"][MODES["auto"].index(way) :]
            assert ways.refused(status(), way, OSError(number, os.strerror(number)), "file")
        assert ways.of(status()) == (COPY,)
        assert ways.of(status(device=2)) == MODES["auto"]

    @pytest.mark.parametrize("number", [errno.EMLINK, errno.ENOSPC, errno.EACCES])
    def test_what_is_refused_for_a_file_is_tried_with_the_next(self, number: int) -> None:
        """A file may have as many links as it can have, and the next none."""
        ways = Ways("hardlink", [].append)
        assert ways.refused(status(), HARDLINK, OSError(number, os.strerror(number)), "file")
        assert ways.of(status()) == MODES["hardlink"]

    @pytest.mark.parametrize("way", [CLONE, HARDLINK])
    def test_an_error_of_the_disk_is_no_reason_to_try_another_way(self, way: str) -> None:
        """EIO is for somebody to know."""
        assert not Ways("auto", [].append).refused(status(), way, OSError(errno.EIO, "broken"), "file")

    @pytest.mark.parametrize("mode", ["auto", "hardlink"])
    def test_files_of_others_are_not_linked(self, mode: str) -> None:
        """Not even by root: the owner of the cache could then change what root runs."""
        told: list[str] = []
        order = Ways(mode, told.append).of(status(owner=os.geteuid() + 1))
        assert HARDLINK not in order
        assert order[-1] == COPY
        assert "same owner" in told[0]


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("mode", "told"),
        [
            ("auto", ["clone\t"]),
            ("auto", ["no clone\tnot supported", "hardlink\t"]),
            ("copy", ["copy\t"]),
            ("clone", ["clone\t"]),
            ("hardlink", ["hardlink\t"]),
            ("hardlink", []),
        ],
    )
    def test_nothing_where_all_is_as_asked_for(self, mode: str, told: list[str]) -> None:
        """With `auto`, links are as good as clones."""
        said = conclude(mode, told)
        assert said.notes == ()
        assert len(said.details) == sum(line.endswith("\t") for line in told)

    @pytest.mark.parametrize(
        ("mode", "told", "note"),
        [
            (
                "auto",
                ["no clone\tno", "no hardlink\tother device", "copy\t", "copy\t"],
                "files were copied, since they could not be linked from the cache: other device",
            ),
            (
                "hardlink",
                ["hardlink\t", "some hardlink\ttoo many", "no clone\tno", "copy\t"],
                "some files were copied, since they could not be linked from the cache: too many",
            ),
            (
                "hardlink",
                ["no hardlink\tother owner", "clone\t"],
                "files were cloned, since they could not be linked from the cache: other owner",
            ),
            (
                "clone",
                ["no clone\tno", "copy\t"],
                "files were copied, since they could not be cloned from the cache: no",
            ),
        ],
    )
    def test_one_sentence_where_it_is_not(self, mode: str, told: list[str], note: str) -> None:
        """It has the reason, however many files and workers met it."""
        assert conclude(mode, told).notes == (note,)


class TestPouring:
    @pytest.mark.parametrize("size", [0, 1, 300_000, 3_000_000])
    @pytest.mark.parametrize("first", range(len(link_modes._MOVES)))
    def test_every_way_copies_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, size: int) -> None:
        """Whichever of the system's calls works, the bytes arrive."""
        content = os.urandom(size)
        (tmp_path / "a").write_bytes(content)
        monkeypatch.setattr(link_modes, "_MOVES", link_modes._MOVES[first:])
        with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as destination:
            Pourer().pour(source.fileno(), destination.fileno(), size)
        assert (tmp_path / "b").read_bytes() == content

    @needs.COPY_FILE_RANGE
    def test_one_that_stops_half_way_is_followed_by_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some kernels' copy_file_range says 0, or refuses, after a part."""
        content = os.urandom(1000)
        (tmp_path / "a").write_bytes(content)

        def part(source: int, destination: int, count: int, _position: int) -> int:
            return os.copy_file_range(source, destination, 300) if count == 1000 else 0

        def refusing(source: int, destination: int, count: int, _position: int) -> int:
            if count == 700:
                return os.copy_file_range(source, destination, 300)
            raise OSError(errno.EXDEV, "other device")

        monkeypatch.setattr(link_modes, "_MOVES", (part, refusing, link_modes._move))
        with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as destination:
            Pourer().pour(source.fileno(), destination.fileno(), 1000)
        assert (tmp_path / "b").read_bytes() == content

    def test_a_source_that_became_shorter_is_an_error(self, tmp_path: Path) -> None:
        """It is not taken for whole."""
        (tmp_path / "a").write_bytes(b"short")
        with (
            (tmp_path / "a").open("rb") as source,
            (tmp_path / "b").open("wb") as destination,
            pytest.raises(OSError, match="shorter"),
        ):
            Pourer().pour(source.fileno(), destination.fileno(), 6)

    def test_what_is_refused_for_two_filesystems_is_not_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One try for all files; what is refused for one file alone is tried for the next."""
        tries = []

        def refusing(number: int) -> Callable[[int, int, int, int], int]:
            def move(*_: int) -> int:
                tries.append(number)
                raise OSError(number, os.strerror(number))

            return move

        moves = (refusing(errno.EXDEV), refusing(errno.EINVAL), link_modes._move)
        monkeypatch.setattr(link_modes, "_MOVES", moves)
        (tmp_path / "a").write_bytes(b"content")
        pourer = Pourer()
        for _ in range(3):
            with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as destination:
                pourer.pour(source.fileno(), destination.fileno(), 7)
            assert (tmp_path / "b").read_bytes() == b"content"
        assert tries == [errno.EXDEV, *[errno.EINVAL] * 3]


def refusing(number: int, *, times: int = 10**6) -> Callable[..., None]:
    """Return a link(2) that refuses so many times."""
    link = os.link
    left = times

    def refuse(source: str, destination: str, **options: int) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OSError(number, os.strerror(number), source)
        link(source, destination, **options)

    return refuse


def modules(env: Path) -> list[Path]:
    return [path for path in site_packages(env).rglob("*.py") if path.is_file()]


@pytest.mark.parametrize("number", sorted({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSPC}))
@pytest.mark.parametrize("mode", ["auto", "hardlink"])
def test_where_link_refuses_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, number: int
) -> None:
    """Nothing is lost, mode and time are kept, and one sentence says why."""
    blocking.sync(LOCK, env=tmp_path / "linked", link_mode="hardlink")
    monkeypatch.setattr(native, "link", refusing(number))
    result = blocking.sync(LOCK, env=tmp_path / "env", link_mode=mode)
    assert [note for note in result.notes if os.strerror(number) in note] == list(result.notes)
    assert len(result.notes) == 1
    assert unverified(tmp_path / "env") == []
    assert leftovers(tmp_path / "env") == []
    for path in modules(tmp_path / "env"):
        there = path.stat()
        store = (tmp_path / "linked" / path.relative_to(tmp_path / "env")).stat()
        assert there.st_mtime_ns == store.st_mtime_ns
        assert bool(there.st_mode & stat.S_IXUSR) == bool(store.st_mode & stat.S_IXUSR)


@pytest.mark.skipif(os.link not in os.supports_dir_fd, reason="needs linkat(2)")
def test_a_file_with_all_the_links_it_can_have_is_copied_and_the_others_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EMLINK counts for one file."""
    blocking.sync(LOCK, env=tmp_path / "first", link_mode="hardlink")
    monkeypatch.setattr(native, "link", refusing(errno.EMLINK, times=2))  # once more by the slow lane
    result = blocking.sync(LOCK, env=tmp_path / "env", link_mode="hardlink")
    assert result.notes[0].startswith("some files were copied")
    counts = [path.stat().st_nlink for path in site_packages(tmp_path / "first").rglob("*") if path.is_file()]
    assert 1 <= counts.count(2) <= 2  # in the store and here; one for each worker
    assert counts.count(3) > 20


def link_often(path: Path, directory: Path) -> None:
    for number in range(70_000):
        os.link(path, directory / str(number))


def test_a_real_limit_on_links(tmp_path: Path) -> None:
    """ext4 allows 65,000 links of a file. The next environment gets a copy of it."""
    with mounted("ext4", tmp_path) as place:
        options = {"cache_dir": place / "cache", "link_mode": "auto"}
        blocking.sync(LOCK, env=place / "first", **options)
        full = site_packages(place / "first") / "shout.py"
        links = place / "links"
        links.mkdir()
        with pytest.raises(OSError, match="Too many links"):
            link_often(full, links)
        result = blocking.sync(LOCK, env=place / "second", **options)
        assert [note for note in result.notes if "Too many links" in note] == list(result.notes)
        assert len(result.notes) == 1
        assert (site_packages(place / "second") / "shout.py").stat().st_nlink == 1
        assert unverified(place / "second") == []
        assert max(path.stat().st_nlink for path in modules(place / "second")) == 3


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
@pytest.mark.parametrize("mode", ["auto", "clone"])
def test_clones(tmp_path: Path, kind: str, mode: str) -> None:
    """Where the filesystem has them, files are clones: whoever writes to one cannot harm the store."""
    with mounted(kind, tmp_path) as place:
        options = {"cache_dir": place / "cache", "link_mode": mode}
        blocking.sync(LOCK, env=place / "env", **options)
        assert blocking.sync(LOCK, env=place / "second", **options).notes == ()
        for env in (place / "env", place / "second"):
            assert {path.stat().st_nlink for path in modules(env)} == {1}
            assert unverified(env) == []
        module = site_packages(place / "env") / "shout.py"
        other = site_packages(place / "second") / "shout.py"
        assert module.stat().st_mtime_ns == other.stat().st_mtime_ns
        content = other.read_bytes()
        module.write_bytes(b"#" * len(content))
        assert other.read_bytes() == content
        assert blocking.sync(LOCK, env=place / "third", **options).notes == ()
        assert unverified(place / "third") == []


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_clones_share_their_blocks(tmp_path: Path, kind: str) -> None:
    """The point of a clone: 16 MB twice take 16 MB."""
    with mounted(kind, tmp_path) as place:
        (place / "a").write_bytes(os.urandom(16 << 20))
        os.sync()
        before = os.statvfs(place)
        with (place / "a").open("rb") as source, (place / "b").open("wb") as destination:
            link_modes.clone(source.fileno(), destination.fileno(), 16 << 20, str(place / "b"))
        os.sync()
        after = os.statvfs(place)
        assert (before.f_bfree - after.f_bfree) * after.f_frsize < 4 << 20
        assert (place / "a").read_bytes() == (place / "b").read_bytes()


@pytest.mark.parametrize("fill", [link_modes.clone, link_modes.Pourer().pour], ids=["clone", "copy"])
def test_what_is_no_file_is_not_filled_nor_waited_for(tmp_path: Path, fill: link_modes.Fill) -> None:
    """Open(2) of a FIFO waits until somebody writes to it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "stage").mkdir()
    os.mkfifo(tmp_path / "store" / "file")
    there = (tmp_path / "store" / "file").stat()
    source = os.open(tmp_path / "store", os.O_RDONLY)
    destination = os.open(tmp_path / "stage", os.O_RDONLY)
    try:
        known = (0, there.st_mtime_ns, 0o666, there.st_dev, there.st_uid)
        assert not fill_as_usual("file", *known, source, destination, fill)
    finally:
        os.close(source)
        os.close(destination)
    assert os.listdir(tmp_path / "stage") == []


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    """What this process lacks says nothing of the store: no entry is to be thrown away for it."""
    import resource

    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "file").touch()
    directories = [Directory("purelib", "", [["file", 0, False]])]
    manifest = Manifest("a", "1", "a.whl", "0" * 64, "purelib", "a-1.dist-info", 1, (), (), (), True, Rows.of([]))
    job = PartJob(str(tmp_path / "store"), str(tmp_path / "stage"), directories, manifest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    linker = Linker(COPY, umask=0o022)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(FilesystemError, match="Too many open files"):
            linker.run([[job]], quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("mode", ["auto", "hardlink", "clone"])
def test_across_filesystems(tmp_path: Path, mode: str) -> None:
    """EXDEV for real: all files are copied, with one sentence."""
    with mounted("tmpfs", tmp_path) as place:
        options = {"cache_dir": place / "cache", "link_mode": mode}
        blocking.sync(LOCK, env=tmp_path / "first", **options)
        result = blocking.sync(LOCK, env=tmp_path / "env", **options)
        assert len(result.notes) == 1
        assert result.notes[0].startswith("files were copied, since they could not be")
        assert unverified(tmp_path / "env") == []
        assert blocking.sync(LOCK, env=tmp_path / "copies", cache_dir=place / "cache", link_mode="copy").notes == ()


THEM = 12345


def as_another_user(*words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run envsync, or some code, as another user, who may read everything: the interpreter may be in root's home."""
    if not IS_ROOT or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv to become another user")
    capabilities = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    start = ["setpriv", f"--reuid={THEM}", f"--regid={THEM}", "--clear-groups", *capabilities]
    program = [sys.executable, "-c", code] if code else envsync_command()
    return subprocess.run([*start, *program, *words], check=False, capture_output=True, text=True)


@pytest.mark.skipif(not IS_ROOT, reason="needs root to become another user")
class TestAnotherUser:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """A cache that root has filled, and a directory for another user."""
        for path in (tmp_path, *tmp_path.parents):
            if path.owner() == "root" and "pytest" in path.name:
                path.chmod(0o755)
        blocking.sync(LOCK, env=tmp_path / "mine", cache_dir=tmp_path / "cache")
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", THEM, THEM)
        return tmp_path

    @pytest.mark.parametrize("mode", ["auto", "hardlink"])
    def test_gets_copies(self, place: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
        """Hard links need the same owner (fs.protected_hardlinks): the others get copies, said once."""
        theirs = place / "theirs"
        monkeypatch.setenv("HOME", str(theirs))

        words = ("--env", str(theirs / "env"), "--cache-dir", str(place / "cache"), "--link-mode", mode)
        done = as_another_user("sync", "--lock", str(LOCK), *words)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("same owner") == 1
        assert unverified(theirs / "env") == []
        for path in modules(theirs / "env"):
            assert (path.stat().st_uid, path.stat().st_nlink) == (THEM, 1)
            assert path.stat().st_mtime_ns == (place / "mine" / path.relative_to(theirs / "env")).stat().st_mtime_ns

    def test_root_does_not_link_theirs(self, place: Path) -> None:
        """What root runs must not be another user's to change."""
        for directory, _, names in os.walk(place / "cache" / "v1" / "wheels"):
            for name in names:
                os.chown(os.path.join(directory, name), THEM, THEM)
        result = blocking.sync(LOCK, env=place / "env", cache_dir=place / "cache")
        assert len([note for note in result.notes if f"uid {THEM}" in note]) == 1
        assert {path.stat().st_uid for path in modules(place / "env")} == {0}
        assert unverified(place / "env") == []


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    """ENOSPC from link(2) may be a limit on links; if it is not, the copy says so."""
    with mounted("tmpfs", tmp_path, size=64 << 10) as place, pytest.raises(FilesystemError, match="No space left"):
        blocking.sync(LOCK, env=place / "env", link_mode="copy")
