"""`--link-mode symlink`: whole directories are links into the store, and nothing comes into the store through them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envsync.library import blocking
from envsync.store import users
from envsync.store.store import Store
from envsync.transaction import journal
from tests import needs
from tests.conftest import envsync_command
from tests.environments import leftovers, site_packages, unverified
from tests.needs import IS_ROOT
from tests.unit.staging.test_link_modes import THEM, as_another_user
from tests.unit.transaction.test_committed_result import TARGETS, Target, World
from tests.wheels import build_wheel, sha256_of

ALPHA = {
    "alpha/__init__.py": "from alpha.sub import deep\n",
    "alpha/sub/__init__.py": "",
    "alpha/sub/deep.py": "x = 1\n",
    "alpha/data/table.csv": "1,2\n",
}


PLAIN = {"plain/__init__.py": "x = 1\n", "plain/sub/a-b.py": "", "plain/sub/a.py": ""}
PLAIN_RECORD = "plain-1.0.dist-info/RECORD"


class Project:
    """A wheelhouse, a lock file and an environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = root / "env"
        self.cache = root / "cache"
        self.wheels: dict[str, str] = {}

    def wheel(self, name: str, files: dict[str, str], version: str = "1.0", **more: object) -> None:
        house = self.root / "wheels"
        house.mkdir(exist_ok=True)
        self.wheels[name] = build_wheel(house, name, version, files, **more)  # type: ignore[arg-type]

    @property
    def lock(self) -> Path:
        lines = ['lock-version = "1.0"', 'created-by = "tests"']
        for name, path in sorted(self.wheels.items()):
            version = Path(path).name.split("-")[1]
            lines += ["[[packages]]", f'name = "{name}"', f'version = "{version}"']
            lines += ["[[packages.wheels]]", f'path = "{path}"', f'hashes = {{sha256 = "{sha256_of(path)}"}}']
        lock = self.root / "pylock.toml"
        lock.write_text("\n".join(lines) + "\n")
        return lock

    def sync(self, mode: str | None = "symlink", **more: object) -> blocking.SyncResult:
        return blocking.sync(self.lock, env=self.env, cache_dir=self.cache, link_mode=mode, **more)  # type: ignore[arg-type]

    def check(self, *words: str) -> subprocess.CompletedProcess[str]:
        options = ("--env", str(self.env), "--cache-dir", str(self.cache), "--link-mode", "symlink")
        return run("check", *words, "--lock", str(self.lock), *options)

    @property
    def site(self) -> Path:
        return site_packages(self.env)

    def is_linked(self, name: str) -> bool:
        return (self.site / name).is_symlink()

    def python(self, code: str, **options: object) -> str:
        words = [str(self.env / "bin" / "python"), "-c", code]
        done = subprocess.run(words, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
        return str(done.stdout).strip()

    def store_files(self) -> dict[str, tuple[int, bytes]]:
        """All that is in the store: path → mode and content."""
        found = {}
        for directory, names, entries in os.walk(self.cache / "v1" / "wheels"):
            for name in (*names, *entries):
                path = Path(directory) / name
                content = b"" if path.is_dir() else path.read_bytes()
                found[str(path)] = (path.stat().st_mode, content)
        return found


def record_in_the_store(project: Project) -> Path:
    (found,) = project.cache.glob(f"v1/wheels/*/purelib/{PLAIN_RECORD}")
    return found


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*envsync_command(), *words], check=False, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.wheel("alpha", ALPHA, entry_points={"console_scripts": {"alpha": "alpha:main"}})
    return project


def test_a_pure_package_is_one_link(project: Project) -> None:
    """It is imported as ever and finds its data; what has to be real is real; RECORD holds."""
    project.sync()
    assert project.is_linked("alpha")
    assert not project.is_linked("alpha-1.0.dist-info")
    assert unverified(project.env) == []
    assert leftovers(project.env) == []
    code = (
        "import alpha, importlib.resources as r; print(alpha.__file__, (r.files(alpha) / 'data/table.csv').read_text())"
    )
    assert project.python(code).split() == [str(project.site / "alpha" / "__init__.py"), "1,2"]
    code = (
        "import importlib.metadata as m; print(m.version('alpha'), all(f.locate().exists() for f in m.files('alpha')))"
    )
    assert project.python(code) == "1.0 True"
    assert project.check().returncode == 0
    assert project.sync().outcome == "current"


def test_record_is_the_wheels_own_after_the_links(project: Project) -> None:
    """Where the environment adds nothing: read from the store, not put together of all files anew."""
    project.wheel("plain", PLAIN)
    project.sync()
    assert (project.site / PLAIN_RECORD).read_text() == "plain,,\n" + record_in_the_store(project).read_text()
    assert unverified(project.env) == []


def test_what_is_shared_or_native_is_real(project: Project) -> None:
    """Directories of several distributions, and those with shared objects in them, are made of files."""
    project.wheel("one", {"shared/one.py": "", "shared/deep/one/x.py": ""})
    project.wheel("two", {"shared/two.py": "", "shared/deep/two/x.py": ""})
    project.wheel("native", {"native/fast.so": "", "native/pure/x.py": "", "libs/deep/x.so.1": ""})
    project.sync()
    site = project.site
    links = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_symlink()}
    assert links == {"alpha", "shared/deep/one", "shared/deep/two", "native/pure"}
    assert unverified(project.env) == []
    assert project.check().returncode == 0


def test_nobody_writes_bytecode_into_the_store(project: Project) -> None:
    """Not even root: Python goes without, or writes where PYTHONPYCACHEPREFIX says."""
    project.sync()
    before = project.store_files()
    assert project.python("import alpha.sub.deep; print(alpha.sub.deep.x)") == "1"
    prefix = project.root / "bytecode"
    project.python("import alpha.sub.deep", env={**os.environ, "PYTHONPYCACHEPREFIX": str(prefix)})
    assert project.store_files() == before
    assert len(list(prefix.rglob("deep.*.pyc"))) == 1
    assert project.check().returncode == 0


def test_the_store_is_read_only_where_it_is_linked(project: Project) -> None:
    """Whoever is not root cannot add a file to a linked directory or remove one from it."""
    project.sync()
    assert stat.S_IMODE((project.site / "alpha").stat().st_mode) & 0o222 == 0
    assert stat.S_IMODE((project.site / "alpha" / "sub").stat().st_mode) & 0o222 == 0


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_uninstalling_removes_the_link_and_nothing_of_the_store(project: Project, tool: str) -> None:
    """pip and uv both remove the link, which RECORD lists first; the next sync brings it again."""
    project.wheel("beta", {"beta.py": ""})
    project.sync()
    before = project.store_files()
    python = str(project.env / "bin" / "python")
    if tool == "uv":
        if shutil.which("uv") is None:
            pytest.skip("needs uv")
        words = ["uv", "pip", "uninstall", "--python", python, "alpha"]
    else:
        words = [sys.executable, "-m", "pip", "--python", python, "uninstall", "-y", "alpha"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        pytest.skip("needs pip")
    assert done.returncode == 0, done.stderr
    assert project.store_files() == before
    assert not os.path.lexists(project.site / "alpha")
    assert project.sync().installed == ("alpha==1.0",)
    assert unverified(project.env) == []


def test_a_link_that_somebody_left_is_replaced(project: Project) -> None:
    """Whoever removes only what is inside of the environment leaves the link: it is no conflict."""
    project.sync()
    shutil.rmtree(project.site / "alpha-1.0.dist-info")
    project.sync()
    assert project.is_linked("alpha")
    assert unverified(project.env) == []


@pytest.mark.parametrize(("first", "then"), [("symlink", "hardlink"), ("hardlink", "symlink"), ("symlink", "symlink")])
def test_an_upgrade_in_either_mode(project: Project, first: str, then: str) -> None:
    """A link gives way to a directory and a directory to a link, with its bytecode."""
    project.sync(first)
    project.python("import alpha.sub.deep")
    project.wheel("alpha", {**ALPHA, "alpha/sub/deep.py": "x = 2\n"}, version="2.0")
    project.sync(then)
    assert project.is_linked("alpha") == (then == "symlink")
    assert project.python("import alpha.sub.deep; print(alpha.sub.deep.x)") == "2"
    assert unverified(project.env) == []
    assert project.check().returncode == 0
    del project.wheels["alpha"]
    project.wheel("beta", {"beta.py": ""})
    project.sync()
    assert not os.path.lexists(project.site / "alpha")


def test_two_that_come_to_share_a_directory(project: Project) -> None:
    """The link becomes a real directory, and a link again when the other is gone."""
    project.sync()
    before = project.store_files()
    project.wheel("plugin", {"alpha/plugins/extra.py": "y = 2\n"})
    project.sync()
    assert not project.is_linked("alpha")
    assert project.is_linked("alpha/plugins")
    assert project.is_linked("alpha/sub")
    assert project.python("import alpha.plugins.extra as e, alpha.sub.deep as d; print(e.y, d.x)") == "2 1"
    assert unverified(project.env) == []
    assert {path: project.store_files()[path] for path in before} == before
    del project.wheels["plugin"]
    project.sync()
    assert project.python("import alpha.sub.deep as d; print(d.x)") == "1"
    assert unverified(project.env) == []
    assert project.check().returncode == 0


def test_a_users_file_in_a_package_is_kept(project: Project) -> None:
    """A directory in which somebody keeps a file of their own stays a directory."""
    project.sync("hardlink")
    (project.site / "alpha" / "settings.py").write_text("mine = True\n")
    project.wheel("alpha", ALPHA, version="2.0")
    project.sync()
    assert not project.is_linked("alpha")
    assert (project.site / "alpha" / "settings.py").read_text() == "mine = True\n"
    assert project.is_linked("alpha/sub")
    assert unverified(project.env) == []


@pytest.mark.skipif(not IS_ROOT, reason="only root can write into the store at all")
class TestWhatRootDoes:
    def test_a_file_put_into_a_linked_directory_is_found(self, project: Project) -> None:
        """`check` names it, and the next environment does not get it: the entry is fetched again."""
        project.sync()
        (project.site / "alpha" / "foreign.py").write_text("")
        assert "alpha/foreign.py" in project.check().stdout
        project.env = project.root / "next"
        result = project.sync()
        assert any("set aside and fetched again" in note for note in result.notes)
        assert not (project.site / "alpha" / "foreign.py").exists()

    def test_a_file_changed_through_a_link_is_found_and_repaired(self, project: Project) -> None:
        """By its hash; the entry is fetched again."""
        project.sync()
        path = project.site / "alpha" / "sub" / "deep.py"
        status = path.stat()
        path.write_text("x = 7\n")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        done = project.check()
        assert done.returncode == 1
        assert "alpha/sub/deep.py" in done.stdout
        assert project.check("--repair").returncode == 0
        assert path.read_text() == "x = 1\n"
        assert project.is_linked("alpha")
        assert unverified(project.env) == []

    def test_a_changed_record_is_found(self, project: Project) -> None:
        """It is read and not linked, and compared all the same."""
        project.wheel("plain", PLAIN)
        project.sync()
        record = record_in_the_store(project)
        record.chmod(0o644)
        record.write_text(record.read_text() + "plain/more.py,,\n")
        project.env = project.root / "next"
        result = project.sync()
        assert any("set aside and fetched again" in note for note in result.notes)
        assert "more.py" not in (project.site / PLAIN_RECORD).read_text()
        assert unverified(project.env) == []

    def test_a_removed_file_is_restored(self, project: Project) -> None:
        """The same for what is missing."""
        project.sync()
        (project.site / "alpha" / "sub" / "deep.py").unlink()
        assert project.check().returncode == 1
        assert project.check("--repair").returncode == 0
        assert unverified(project.env) == []


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("limit", range(5))
def test_a_commit_that_ends_half_way_is_finished(project: Project, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A link is one entry that is renamed, like any other."""
    project.sync("hardlink")
    project.wheel("alpha", {**ALPHA, "alpha/sub/deep.py": "x = 2\n"}, version="2.0")
    steps = 0

    def strike(step: Callable[..., bool]) -> Callable[..., bool]:
        def taken(*what: object) -> bool:
            nonlocal steps
            steps += 1
            if steps > limit:
                raise KilledError
            return step(*what)

        return taken

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_remove", strike(journal._remove))
        patch.setattr(journal, "_place", strike(journal._place))
        with pytest.raises(KilledError):
            project.sync()
    project.sync()
    assert project.is_linked("alpha")
    assert project.python("import alpha.sub.deep; print(alpha.sub.deep.x)") == "2"
    assert unverified(project.env) == []
    assert leftovers(project.env) == []


class TestUsers:
    def test_what_is_linked_is_used(self, project: Project) -> None:
        """From the commit on, until the environment is gone, or links nothing any more."""
        sha256 = sha256_of(project.wheels["alpha"])
        project.sync()
        assert users.used(str(project.cache)) == {sha256}
        project.wheel("alpha", ALPHA, version="2.0")
        project.sync()
        assert users.used(str(project.cache)) == {sha256_of(project.wheels["alpha"])}
        project.wheel("alpha", ALPHA, version="3.0")
        project.sync("copy")
        assert users.used(str(project.cache)) == set()
        assert list((project.cache / "v1" / "users").iterdir()) == []

    @needs.PROC
    def test_an_environment_that_is_gone_uses_nothing(self, project: Project) -> None:
        """Its reference is dropped."""
        project.sync()
        shutil.rmtree(project.env)
        assert users.used(str(project.cache)) == set()
        assert users.used(str(project.cache), drop=True) == set()
        assert list((project.cache / "v1" / "users").iterdir()) == []

    @needs.PROC
    def test_one_made_anew_in_its_place_uses_what_it_links(self, project: Project) -> None:
        """A directory with another in-use lock is another environment."""
        project.sync()
        in_use = project.env / ".envsync" / "in-use"
        in_use.rename(project.root / "old")
        in_use.write_bytes(b"")
        assert users.used(str(project.cache)) == set()

    def test_what_only_another_host_sees_counts_for_a_while(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An environment on a disk of another node is none of ours to forget."""
        project.sync()
        used = users.used(str(project.cache))
        (reference,) = (project.cache / "v1" / "users").iterdir()
        reference.write_text(reference.read_text().replace(f'"host": "{os.uname().nodename}"', '"host": "elsewhere"'))
        project.env.rename(project.root / "moved")
        assert users.used(str(project.cache)) == used
        os.utime(reference, (0, 0))
        assert users.used(str(project.cache)) == set()

    def test_a_reference_is_written_before_the_commit(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        """A leader that dies in the commit leaves the entries used that the next one links."""
        seen: list[set[str]] = []
        write = journal.write

        def look(*arguments: object, **options: object) -> None:
            seen.append(users.used(str(project.cache)))
            write(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(journal, "write", look)
        project.sync()
        assert seen == [{sha256_of(project.wheels["alpha"])}]

    def test_ordinary_modes_write_none(self, project: Project) -> None:
        """Nobody pays for what they do not use."""
        project.sync("hardlink")
        assert not (project.cache / "v1" / "users").exists()


def test_one_who_is_not_root(project: Project) -> None:
    """Can neither add a file to a linked directory nor remove one, but can remove the whole entry."""
    place = project.root / "theirs"
    place.mkdir()
    project.root.chmod(0o755)
    for path in project.root.parents:
        if not path.stat().st_mode & 0o001:  # pytest's own directories, however many there are
            path.chmod(0o755)
    os.chown(place, THEM, THEM)
    cache = place / "cache"
    words = ("--env", str(place / "env"), "--cache-dir", str(cache), "--link-mode", "symlink")
    done = as_another_user("sync", "--lock", str(project.lock), *words)
    assert done.returncode == 0, done.stderr
    linked = site_packages(place / "env") / "alpha"
    assert linked.is_symlink()
    for code in (f"open({str(linked / 'new.py')!r}, 'w')", f"os.unlink({str(linked / '__init__.py')!r})"):
        refused = as_another_user(code=f"import os; {code}")
        assert "PermissionError" in refused.stderr
    code = f"from envsync.store.store import Store; Store({str(cache)!r}).discard({linked.resolve().parts[-3]!r})"
    done = as_another_user(code=f"import sys; sys.path[:0] = {sys.path!r}; {code}")
    assert done.returncode == 0, done.stderr
    assert os.listdir(cache / "v1" / "wheels") == os.listdir(cache / "v1" / "tmp") == []


def test_a_read_only_cache(project: Project) -> None:
    """Is linked as it is; that it could not be told is said."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount it read-only")
    project.sync("hardlink")
    project.env = project.root / "next"
    place = str(project.cache)
    bind = "mount --bind '$0' '$0' && mount -o remount,bind,ro '$0' && exec \"$@\"".replace("'", '"')
    words = ("sync", "--lock", str(project.lock), "--env", str(project.env), "--cache-dir", place)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", bind, place, *envsync_command(), *words, "--link-mode", "symlink"],
        check=False,
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "the cache was not told" in done.stderr
    assert project.is_linked("alpha")
    assert unverified(project.env) == []


def test_an_entry_of_sealed_directories_can_be_discarded(project: Project) -> None:
    """By its owner, who is not root: in a directory that is read-only nothing can be removed."""
    project.sync()
    store = Store(str(project.cache))
    store.discard(sha256_of(project.wheels["alpha"]))
    assert os.listdir(store.wheels) == []
    assert os.listdir(store.tmp) == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


MODES = st.sampled_from(["symlink", "symlink", "hardlink", "copy"])


@settings(max_examples=settings.default.max_examples // 3)
@given(st.lists(st.tuples(TARGETS, MODES), min_size=2, max_size=4))
def test_the_result_is_exactly_the_target_in_whichever_modes(world: World, steps: list[tuple[Target, str]]) -> None:
    """What is seen through the links is the target's files and no others, whatever was linked before."""
    world.reset()
    shutil.rmtree(world.cache / "v1" / "users", ignore_errors=True)
    for target, mode in steps:
        wheels = world.chosen(target)
        world.sync(wheels, link_mode=mode)
        contents, _ = world.expected(wheels)
        seen = set()
        for directory, names, entries in os.walk(world.env, followlinks=True):
            names[:] = [name for name in names if name not in (".envsync", "lib64")]
            seen |= {os.path.relpath(os.path.join(directory, entry), world.env) for entry in entries}
        records = {wheel.record for wheel in wheels}
        blockers = {path for path in seen if path.endswith("/__pycache__")}
        assert seen - blockers - world.skeleton.keys() == contents.keys() | records
        assert {path: (world.env / path).read_bytes() for path in contents} == contents
        links = [os.readlink(path) for path in (world.env / "lib").rglob("*") if path.is_symlink()]
        assert users.used(str(world.cache)) == {link.split("/wheels/")[1].partition("/")[0] for link in links}
        assert world.sync(wheels, link_mode=mode).outcome == "current"
