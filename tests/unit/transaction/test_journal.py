"""The journal: written whole or not at all, and leading to the same result however often it is interrupted."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.errors import EnvironmentRefusedError, FilesystemError
from envsync.launch import Environment
from envsync.launch.stamp import checksum
from envsync.system import atomic, native
from envsync.transaction import journal
from envsync.transaction.journal import Identity, Journal, Place, Remove, apply, dump, finish, load

WORK = "site/.envsync/1"
PATHS = st.binary(max_size=20).filter(lambda data: b"\0" not in data).map(os.fsdecode) | st.text(
    st.sampled_from('end \n"\\[]{}0'), max_size=12
)
NUMBERS = st.integers(0, 2**63)
STEPS = st.builds(Remove, PATHS, st.builds(Identity, NUMBERS, NUMBERS, NUMBERS), PATHS) | st.builds(Place, PATHS, PATHS)

LINKED = ("site/shared/b.py", "site/shared/a.py")
"""Where a test may put links to what is staged for them."""

Files = dict[str, str]


def write(root: Path, files: Files) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)


def read(root: Path) -> Files:
    """Return the files below a directory, without our own."""
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.relative_to(root).as_posix().startswith((".envsync", WORK))
    }


def staged(root: Path) -> list[str]:
    """List the files that are left in the stage."""
    top = root / WORK / "new"
    return [path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()]


class Site:
    """An environment with an upgrade prepared: packages, a module, a shared directory, a script, metadata."""

    OLD: ClassVar[Files] = {
        "bin/tool": "old tool",
        "bin/mine": "a user's",
        "site/mod.py": "old mod",
        "site/gone/__init__.py": "gone",
        "site/pkg/__init__.py": "old pkg",
        "site/pkg/old.py": "old only",
        "site/shared/mine.txt": "a user's",
        "site/shared/a.py": "old a",
        "site/pkg-1.dist-info/RECORD": "old record",
    }
    NEW: ClassVar[Files] = {
        "bin/tool": "new tool",
        "site/mod.py": "new mod",
        "site/pkg/__init__.py": "new pkg",
        "site/pkg/new.py": "new only",
        "site/shared/a.py": "new a",
        "site/shared/b.py": "new b",
        "site/fresh/__init__.py": "fresh",
        "site/pkg-2.dist-info/RECORD": "new record",
    }
    REMOVED = ("site/pkg-1.dist-info", "bin/tool", "site/gone", "site/mod.py", "site/pkg", "site/shared/a.py")
    PLACED = (
        "bin/tool",
        "site/fresh",
        "site/mod.py",
        "site/pkg",
        "site/shared/a.py",
        "site/shared/b.py",
        "site/pkg-2.dist-info",
    )
    AFTER: ClassVar[Files] = {"bin/mine": "a user's", "site/shared/mine.txt": "a user's", **NEW}

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = Environment(str(root))
        (root / ".envsync").mkdir(parents=True)
        write(root, self.OLD)
        write(root / WORK / "new", self.NEW)
        steps: list[Remove | Place] = [
            Remove(path, Identity.of(f"{root}/{path}"), f"{WORK}/old/{number}")
            for number, path in enumerate(self.REMOVED)
        ]
        steps += [Place(f"{WORK}/new/{path}", path) for path in self.PLACED]
        self.journal = Journal(WORK, tuple(steps))

    def check(self) -> None:
        assert read(self.root) == self.AFTER
        assert staged(self.root) == []


class FailsOnce:
    """A system call that fails when it was called so often before, just before it is done or just after."""

    def __init__(self, call: Callable[..., None], number: int, error: BaseException, *, after: bool = False) -> None:
        self.call = call
        self.number = number
        self.error = error
        self.after = after
        self.calls = 0

    def __call__(self, *arguments: str) -> None:
        self.calls += 1
        fails = self.calls == self.number + 1
        if fails and not self.after:
            raise self.error
        self.call(*arguments)
        if fails:
            raise self.error


def stop_everywhere(
    make_site: Callable[[], Site],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    after: bool,
    foreign: tuple[str, ...] = (),
) -> int:
    """Stop a commit at each of its calls of one kind, each time on a new site, and finish it.

    :param foreign: what may be named as foreign then
    :returns: at how many calls it was stopped; those that fail by themselves do not count if it was to be after them
    """
    stopped = 0
    for number in range(200):
        site = make_site()
        journal.write(site.environment, site.journal)
        module = native if name == "replace" else os
        call = FailsOnce(getattr(module, name), number, KeyboardInterrupt(), after=after)
        with monkeypatch.context() as patched:
            patched.setattr(module, name, call)
            try:
                finish(site.environment, site.journal)
            except KeyboardInterrupt:
                stopped += 1
        if call.calls <= number:
            return stopped
        if journal.read(site.environment) is not None:
            assert set(finish(site.environment, site.journal)) <= set(foreign)
        site.check()
        assert not os.path.exists(site.environment.journal)
    raise AssertionError("it never comes to its end")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "env")


@pytest.fixture
def fresh_site(tmp_path: Path) -> Callable[[], Site]:
    """Make one site after the other."""
    number = iter(range(10**6))

    def make() -> Site:
        return Site(tmp_path / f"env{next(number)}")

    return make


class TestFile:
    """The file."""

    @given(PATHS, st.lists(STEPS, max_size=6))
    def test_what_is_written_is_read(self, workspace: str, steps: list[Remove | Place]) -> None:
        """Every journal is read as it was written, whatever the paths in it are."""
        written = Journal(workspace, tuple(steps))
        assert load(dump(written), "env") == written

    @given(PATHS, st.lists(STEPS, max_size=3))
    def test_a_torn_one_was_never_decided(self, workspace: str, steps: list[Remove | Place]) -> None:
        """A journal that was cut off, at whatever length, is none."""
        data = dump(Journal(workspace, tuple(steps)))
        for length in range(len(data)):
            assert load(data[:length], "env") is None

    def test_a_damaged_one_is_none(self, site: Site) -> None:
        """A journal with a single wrong bit is none."""
        data = bytearray(dump(site.journal))
        for position in range(len(data)):
            data[position] ^= 1 << position % 8
            assert load(bytes(data), "env") is None
            data[position] ^= 1 << position % 8

    def test_a_newer_one_is_refused(self, site: Site) -> None:
        """A journal of a newer format is neither ignored nor misread: that envsync has to finish it."""
        head, *rest = dump(site.journal).rpartition(b"end ")[0].splitlines(keepends=True)
        value = json.loads(head)
        value["format"] += 1
        body = b"".join([json.dumps(value).encode() + b"\n", *rest])
        newer = body + f"end {journal.checksum(body)}\n".encode()
        with pytest.raises(EnvironmentRefusedError, match="format") as caught:
            load(newer, "/the/env")
        assert "/the/env" in caught.value.message

    def test_write_and_read(self, site: Site) -> None:
        """It is written to its place, and read from there; before, there is none."""
        assert journal.read(site.environment) is None
        journal.write(site.environment, site.journal)
        assert journal.read(site.environment) == site.journal
        assert sorted(os.listdir(site.root / ".envsync")) == ["journal"]


class TestApply:
    """The steps."""

    def test_all_at_once(self, site: Site) -> None:
        """Uninterrupted, the steps lead from the old state to the new one; what was removed is in the trash."""
        assert apply(site.environment, site.journal) == ()
        site.check()
        trash = site.root / WORK / "old"
        assert sorted(path.name for path in trash.iterdir()) == [str(n) for n in range(len(site.REMOVED))]
        assert (trash / "4" / "old.py").read_text() == "old only"

    def test_after_any_prefix(self, fresh_site: Callable[[], Site]) -> None:
        """However many steps were taken before, taking all of them leads to the same result."""
        for done in range(len(fresh_site().journal.steps) + 1):
            site = fresh_site()
            apply(site.environment, Journal(WORK, site.journal.steps[:done]))
            apply(site.environment, site.journal)
            site.check()
            apply(site.environment, site.journal)
            site.check()

    def test_redoing_leaves_nothing_undone(self, fresh_site: Callable[[], Site]) -> None:
        """Where nobody else was at work, taking the steps again names nothing as foreign."""
        for done in range(len(fresh_site().journal.steps) + 1):
            site = fresh_site()
            apply(site.environment, Journal(WORK, site.journal.steps[:done]))
            assert apply(site.environment, site.journal) == ()

    @pytest.mark.parametrize("name", ["replace", "unlink"])
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_interrupted_at_every_change(
        self, fresh_site: Callable[[], Site], monkeypatch: pytest.MonkeyPatch, name: str, after: bool
    ) -> None:
        """Stopped at any rename or unlink, just before or just after it, the next attempt comes to the same result."""

        def linked_site() -> Site:
            site = fresh_site()
            self.link_placed_files(site)
            return site

        # What was linked is not what the journal was to remove.
        stopped = stop_everywhere(linked_site, monkeypatch, name, after=after, foreign=LINKED)
        assert stopped >= (10 if name == "replace" else 3)

    def link_placed_files(self, site: Site) -> None:
        """Make two destinations one file with what is staged for them."""
        for path in LINKED:
            (site.root / path).unlink(missing_ok=True)
            os.link(site.root / WORK / "new" / path, site.root / path)

    @pytest.mark.parametrize("cause", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.ESTALE, errno.EROFS])
    def test_a_refused_step_can_be_repeated(
        self, fresh_site: Callable[[], Site], monkeypatch: pytest.MonkeyPatch, cause: int
    ) -> None:
        """If the system refuses a rename, that is said with the path, the journal stays, and the next one finishes."""
        for number in range(len(fresh_site().journal.steps)):
            site = fresh_site()
            journal.write(site.environment, site.journal)
            with monkeypatch.context() as patched:
                patched.setattr(native, "replace", FailsOnce(os.rename, number, OSError(cause, os.strerror(cause))))
                patched.setattr(atomic, "MOVE_SECONDS", 0)
                with pytest.raises(FilesystemError, match="cannot move") as caught:
                    finish(site.environment, site.journal)
            assert caught.value.errno == cause
            assert caught.value.path == f"{site.root}/{site.journal.steps[number].path}"
            decided = journal.read(site.environment)
            assert decided is not None
            finish(site.environment, decided)
            site.check()

    def test_a_crash_does_not_need_the_trash_directory(self, site: Site) -> None:
        """The trash is made if it is missing: it may not have reached the disk."""
        assert not (site.root / WORK / "old").exists()
        assert apply(site.environment, site.journal) == ()


class TestNoDirectoryRenames:
    """Filesystems that rename files only, and Windows, where no directory is tried."""

    @pytest.fixture(autouse=True, params=["filesystem", "system"])
    def _no_directory_renames(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "system":
            monkeypatch.setattr(native, "MOVES_DIRECTORIES", False)
        original = os.rename

        def refusing(source: str, destination: str) -> None:
            if os.path.isdir(source):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)
            original(source, destination)

        monkeypatch.setattr(native, "replace", refusing)

    def test_directories_are_moved_file_by_file(self, site: Site) -> None:
        """It comes to the same result, and what was removed is in the trash."""
        assert apply(site.environment, site.journal) == ()
        site.check()
        assert (site.root / WORK / "old" / "4.parts" / "old.py").read_text() == "old only"
        assert apply(site.environment, site.journal) == ()
        site.check()

    @pytest.mark.parametrize("name", ["replace", "mkdir", "rmdir"])
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_interrupted_at_every_change(
        self, fresh_site: Callable[[], Site], monkeypatch: pytest.MonkeyPatch, name: str, after: bool
    ) -> None:
        """Stopped in the midst of a directory, at whatever file, the next attempt comes to the same result."""
        assert stop_everywhere(fresh_site, monkeypatch, name, after=after) >= 4

    def test_what_somebody_put_there_meanwhile_is_left(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file in the way of one of a directory's is left and named; so is the file that was to come."""
        original = os.mkdir

        def busy(path: str, mode: int = 0o777) -> None:
            original(path, mode)
            if path.endswith("site/fresh"):
                write(site.root, {"site/fresh/__init__.py": "somebody's"})

        monkeypatch.setattr(os, "mkdir", busy)
        assert apply(site.environment, site.journal) == ("site/fresh",)
        assert (site.root / "site/fresh/__init__.py").read_text() == "somebody's"
        assert staged(site.root) == ["site/fresh/__init__.py"]

    def test_a_foreign_directory_is_not_filled(self, site: Site) -> None:
        """A directory that was there before the first file was moved is somebody's: nothing is put into it."""
        write(site.root, {"site/fresh/mine.py": "somebody's"})
        assert apply(site.environment, site.journal) == ("site/fresh",)
        assert os.listdir(site.root / "site/fresh") == ["mine.py"]


class TestForeign:
    """What somebody else has put where the steps wanted to go."""

    def test_another_file_in_the_place_of_one_that_goes(self, site: Site) -> None:
        """A file that was replaced since it was looked at is left, and named, and so is what was to come there."""
        (site.root / "site/mod.py").unlink()
        write(site.root, {"site/mod.py": "somebody's"})
        assert apply(site.environment, site.journal) == ("site/mod.py", "site/mod.py")
        assert read(site.root) == {**site.AFTER, "site/mod.py": "somebody's"}

    @pytest.mark.parametrize("change", ["content", "time"])
    def test_a_changed_file_is_foreign(self, site: Site, change: str) -> None:
        """A file that was written to since is somebody's, even if it is the same inode."""
        path = site.root / "site/mod.py"
        if change == "content":
            with path.open("a") as file:
                file.write(" and more")
        else:
            os.utime(path, ns=(1, 1))
        content = path.read_text()
        assert apply(site.environment, site.journal) == ("site/mod.py", "site/mod.py")
        assert path.read_text() == content

    def test_another_directory_in_the_place_of_one_that_goes(self, site: Site) -> None:
        """A directory that was replaced since is left whole."""
        os.rename(site.root / "site/pkg", site.root / "elsewhere")  # rather than removed: its inode stays in use
        write(site.root, {"site/pkg/__init__.py": "somebody's"})
        assert apply(site.environment, site.journal) == ("site/pkg", "site/pkg")
        assert (site.root / "site/pkg/__init__.py").read_text() == "somebody's"

    def test_bytecode_does_not_make_a_directory_foreign(self, site: Site) -> None:
        """What is compiled in a directory meanwhile goes with it."""
        write(site.root, {"site/pkg/__pycache__/old.cpython-311.pyc": "bytecode"})
        assert apply(site.environment, site.journal) == ()
        site.check()

    def test_a_file_where_something_is_to_come(self, site: Site) -> None:
        """What appeared where nothing was is left, and named."""
        write(site.root, {"site/shared/b.py": "somebody's", "site/fresh": "somebody's"})
        assert apply(site.environment, site.journal) == ("site/fresh", "site/shared/b.py")
        assert read(site.root)["site/shared/b.py"] == "somebody's"
        assert read(site.root)["site/fresh"] == "somebody's"

    def test_an_empty_directory_where_something_is_to_come(self, site: Site) -> None:
        """Even an empty directory is somebody's: rename(2) would replace it."""
        (site.root / "site/fresh").mkdir()
        assert apply(site.environment, site.journal) == ("site/fresh",)
        assert list((site.root / "site/fresh").iterdir()) == []

    def test_a_link_where_something_is_to_come(self, site: Site) -> None:
        """A link that leads nowhere is something, too."""
        (site.root / "site/fresh").symlink_to("nowhere")
        assert apply(site.environment, site.journal) == ("site/fresh",)
        assert os.readlink(site.root / "site/fresh") == "nowhere"

    def test_what_is_gone_is_done(self, site: Site) -> None:
        """What was to go and is gone is as it should be."""
        shutil.rmtree(site.root / "site/gone")
        (site.root / "bin/tool").unlink()
        assert apply(site.environment, site.journal) == ()
        site.check()

    def test_a_directory_that_was_taken_away(self, site: Site) -> None:
        """Where the directory is gone that something was to come to, that is named; the plan is made again."""
        shutil.rmtree(site.root / "site/shared")
        assert apply(site.environment, site.journal) == ("site/shared/a.py", "site/shared/b.py")

    def test_a_file_in_the_place_of_a_directory(self, site: Site) -> None:
        """Where a directory became a file, that is somebody's: it is named, and no reason to fail for ever."""
        shutil.rmtree(site.root / "site/shared")
        write(site.root, {"site/shared": "somebody's"})
        left = apply(site.environment, site.journal)
        assert set(left) == {"site/shared/a.py", "site/shared/b.py"}
        assert (site.root / "site/shared").read_text() == "somebody's"

    def test_the_same_after_a_crash(self, fresh_site: Callable[[], Site]) -> None:
        """What somebody put there after a crash is left as well, whenever the crash was."""
        for done in range(len(Site.REMOVED), len(fresh_site().journal.steps)):
            site = fresh_site()
            apply(site.environment, Journal(WORK, site.journal.steps[:done]))
            (site.root / "site/pkg-2.dist-info").mkdir()
            assert "site/pkg-2.dist-info" in apply(site.environment, site.journal)
            assert list((site.root / "site/pkg-2.dist-info").iterdir()) == []


class TestOneInode:
    """A file and its successor may be two links of one file in the store."""

    def test_rename_does_nothing_to_two_links_of_one_file(self, tmp_path: Path) -> None:
        """rename(2) of two hard links of one file reports success and leaves both: hence the remedy."""
        (tmp_path / "a").write_text("x")
        os.link(tmp_path / "a", tmp_path / "b")
        os.rename(tmp_path / "a", tmp_path / "b")
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]

    def test_placing_a_file_onto_itself(self, site: Site) -> None:
        """If what is to come is there already as another link, the stage's is removed: it does not stay behind."""
        os.link(site.root / WORK / "new/site/shared/b.py", site.root / "site/shared/b.py")
        assert apply(site.environment, site.journal) == ()
        site.check()

    def test_removing_and_placing_one_file(self, fresh_site: Callable[[], Site]) -> None:
        """A file that goes and comes as a link of the same inode is there afterwards, after any interruption."""
        for done in range(len(fresh_site().journal.steps) + 1):
            site = fresh_site()
            path = site.root / "site/shared/a.py"
            path.unlink()
            os.link(site.root / WORK / "new/site/shared/a.py", path)
            steps = tuple(
                Remove(step.path, Identity.of(f"{site.root}/{step.path}"), step.trash)
                if isinstance(step, Remove)
                else step
                for step in site.journal.steps
            )
            apply(site.environment, Journal(WORK, steps[:done]))
            apply(site.environment, Journal(WORK, steps))
            site.check()
            apply(site.environment, Journal(WORK, steps))
            site.check()


class TestFinish:
    """From the journal to the new records."""

    def test_the_new_ledger_is_put_in_place(self, site: Site) -> None:
        """installed.json is replaced by the one that waits in the workspace, and the journal is gone."""
        write(site.root, {".envsync/installed.json": "old", f"{WORK}/installed.json": "new"})
        journal.write(site.environment, site.journal)
        assert finish(site.environment, site.journal) == ()
        assert (site.root / ".envsync/installed.json").read_text() == "new"
        assert os.listdir(site.root / ".envsync") == ["installed.json"]

    def test_twice(self, site: Site) -> None:
        """A crash between the ledger and the journal's removal does no harm."""
        write(site.root, {f"{WORK}/installed.json": "new"})
        finish(site.environment, site.journal)
        journal.write(site.environment, site.journal)
        finish(site.environment, site.journal)
        assert (site.root / ".envsync/installed.json").read_text() == "new"
        site.check()

    def test_foreign_entries_do_not_keep_the_journal(self, site: Site) -> None:
        """What cannot be done as decided is reported, and the journal is done with: the plan is made again."""
        (site.root / "site/fresh").mkdir()
        journal.write(site.environment, site.journal)
        assert finish(site.environment, site.journal) == ("site/fresh",)
        assert not os.path.exists(site.environment.journal)


def test_a_dist_info_that_was_made_anew_with_the_inode_of_the_old_one(tmp_path: Path) -> None:
    """Its mtime tells them apart; what another tool has installed is not taken for what was to go."""
    (tmp_path / "a-1.0.dist-info").mkdir()
    before = Identity.of(f"{tmp_path}/a-1.0.dist-info")
    os.utime(tmp_path / "a-1.0.dist-info", (1, 1))
    after = Identity.of(f"{tmp_path}/a-1.0.dist-info")
    assert before.inode == after.inode
    assert before != after


class TestConfined:
    """A journal reaches no further than its environment, whoever has written it."""

    @pytest.fixture
    def outside(self, site: Site) -> Path:
        """A directory beside the environment, with a file in it."""
        directory = site.root.with_name("outside")
        write(directory, {"a": "precious"})
        return directory

    @pytest.mark.parametrize(
        "step",
        [
            Remove("../outside/a", Identity(1, 1, 1), f"{WORK}/old/0"),
            Remove("{outside}/a", Identity(1, 1, 1), f"{WORK}/old/0"),
            Remove("site/mod.py", Identity(1, 1, 1), "../outside/put"),
            Remove("site/mod.py", Identity(1, 1, 1), f"{WORK}/../../../../outside/put"),
            Remove("site/mod.py", Identity(1, 1, 1), "site/elsewhere"),
            Place(f"{WORK}/new/site/mod.py", "../outside/put"),
            Place(f"{WORK}/new/site/mod.py", "{outside}/put"),
            Place("../outside/a", "site/stolen"),
            Place("{outside}/a", "site/stolen"),
            Place("site/pkg", "site/stolen"),
            Place(f"{WORK}/new/site/mod.py", ".envsync/in-use"),
            Place(f"{WORK}/new/site/mod.py", ".lock"),
            Place(f"{WORK}/new/site/mod.py", "site/a\0b"),
            Place(f"{WORK}/new/site/mod.py", "./site//mod.py"),
        ],
        ids=repr,
    )
    def test_a_path_that_leads_out_makes_it_absent(self, site: Site, outside: Path, step: Remove | Place) -> None:
        """What is absolute, goes up or is the protocol's own was written by nobody that decided a commit."""
        step = type(step)(*(one.format(outside=outside) if isinstance(one, str) else one for one in step))
        journal.write(site.environment, Journal(WORK, (*site.journal.steps, step)))
        assert journal.read(site.environment) is None

    @pytest.mark.parametrize(
        "workspace", ["", ".", "..", "site", ".envsync", "/tmp/.envsync/1", "../.envsync/1", 7, None]
    )
    def test_so_does_a_workspace_that_is_none(self, site: Site, workspace: str) -> None:
        """It is removed with all that is in it."""
        journal.write(site.environment, Journal(workspace, ()))
        assert journal.read(site.environment) is None

    def test_a_workspace_that_is_a_link_is_not_followed(self, site: Site, outside: Path) -> None:
        """Nor is a directory above it."""
        shutil.rmtree(site.root / WORK)
        (site.root / WORK).symlink_to(outside)
        journal.write(site.environment, site.journal)
        assert journal.read(site.environment) is None

    @pytest.mark.parametrize("path", ["site/shared", f"{WORK}/new/site/shared", f"{WORK}/old"])
    def test_a_link_leads_no_step_out(self, site: Site, outside: Path, path: str) -> None:
        """Of source, destination and trash: such a step is not taken, and named, and nothing outside is touched."""
        write(outside, {"a.py": "precious", "b.py": "precious"})
        before = read(outside)
        shutil.rmtree(site.root / path, ignore_errors=True)
        (site.root / path).symlink_to(outside)
        journal.write(site.environment, site.journal)
        decided = journal.read(site.environment)
        assert decided is not None
        assert "site/shared/a.py" in apply(site.environment, decided)
        assert read(outside) == before

    def test_a_link_that_an_earlier_step_has_placed_leads_none_out(self, site: Site, outside: Path) -> None:
        """Each directory is looked at again once something was moved to its place or away."""
        (site.root / WORK / "new/link").symlink_to(outside)
        steps = (
            Place(f"{WORK}/new/site/fresh", "site/fresh"),
            Place(f"{WORK}/new/site/mod.py", "site/fresh/mod.py"),
            Remove("site/fresh", Identity.of(f"{site.root}/{WORK}/new/site/fresh"), f"{WORK}/old/0"),
            Place(f"{WORK}/new/link", "site/fresh"),
            Place(f"{WORK}/new/bin/tool", "site/fresh/tool"),
        )
        assert apply(site.environment, Journal(WORK, steps)) == ("site/fresh/tool",)
        assert read(outside) == {"a": "precious"}

    def test_a_link_within_is_followed(self, site: Site) -> None:
        """As `lib64` to `lib` is."""
        os.rename(site.root / "site/shared", site.root / "site/real")
        (site.root / "site/shared").symlink_to("real")
        assert apply(site.environment, site.journal) == ()

    def test_a_stage_that_is_moved_file_by_file_goes_through_no_link(self, site: Site, outside: Path) -> None:
        """A directory of it that is begun may have become one."""
        write(site.root / WORK / "new", {"site/fresh/deep/b.py": "new"})
        (site.root / "site/fresh").mkdir()
        (site.root / "site/fresh/deep").symlink_to(outside)
        assert not atomic.move_tree(f"{site.root}/{WORK}/new/site/fresh", f"{site.root}/site/fresh")
        assert read(outside) == {"a": "precious"}

    @pytest.mark.parametrize(
        "lines",
        [
            [],
            [1],
            [None],
            [[]],
            [{}],
            [{"format": 1}],
            [{"format": "1", "workspace": WORK}],
            [{"format": 1, "workspace": WORK}, 5],
            [{"format": 1, "workspace": WORK}, []],
            [{"format": 1, "workspace": WORK}, ["remove"]],
            [{"format": 1, "workspace": WORK}, ["remove", "a", "b", 1, 1, "c"]],
            [{"format": 1, "workspace": WORK}, ["remove", "a", 1, 1, 1, None]],
            [{"format": 1, "workspace": WORK}, ["place", "a"]],
            [{"format": 1, "workspace": WORK}, ["swap", "a", "b"]],
        ],
        ids=json.dumps,
    )
    def test_what_makes_no_sense_counts_as_absent(self, lines: list[object]) -> None:
        """Though its checksum fits."""
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        assert load(body + f"end {checksum(body)}\n".encode(), "env") is None

    @pytest.mark.parametrize(
        "body",
        [b"\n", b"{\n", b"[" * 100_000 + b"\n", b"9" * 5000 + b"\n", b"\xff\n", b'{"format": 1, "workspace": 1}\n'],
    )
    def test_what_is_no_json_counts_as_absent(self, body: bytes) -> None:
        """However deep, long or odd it is."""
        found = load(body + f"end {checksum(body)}\n".encode(), "env")
        assert found is None or not journal.is_confined(found)
