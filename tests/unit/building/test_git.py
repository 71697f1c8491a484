"""The tree of a commit: brought by git, from servers of all kinds, kept in the cache, and without a secret anywhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from envsync.building.git import check_out
from envsync.errors import BuildError, FetchError
from envsync.lockfile.target import GIT, Source
from envsync.store.store import Store
from tests import needs
from tests.git_repositories import DYNAMIC, commit, git, new_repository, serving

pytestmark = needs.GIT

GONE = "0123456789abcdef0123456789abcdef01234567"
Bring = Callable[..., Path]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "cache"))
    store.prepare()
    return store


@pytest.fixture
def bring(tmp_path: Path, store: Store) -> Bring:
    """Return a function that checks a commit out of a repository, and returns the tree."""

    def bring(url: str, commit: str, into: str = "tree", *, offline: bool = False, **source: object) -> Path:
        check_out(
            Source(GIT, url, commit, **source),  # type: ignore[arg-type]
            str(tmp_path / into),
            store=store,
            package="thing",
            offline=offline,
            log=str(tmp_path / "log"),
            checkpoint=lambda: None,
        )
        return tmp_path / into

    return bring


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits, the first with a tag, and a version of its own."""
    at = new_repository(tmp_path / "served" / "thing")
    git(at, "tag", "--annotate", "--message=First", "v0.1")
    commit(at, **{"thing.py": "x = 2\n"})
    return at


def head(at: Path) -> str:
    return git(at, "rev-parse", "HEAD")


def database(store: Store) -> Path:
    (found,) = Path(store.root, "v1/git").iterdir()
    return found


def commits(tree: Path) -> int:
    return int(git(tree, "rev-list", "--count", "HEAD"))


def test_a_tree_is_that_of_the_commit(bring: Bring, repository: Path) -> None:
    """The files are those of the commit, whatever came later, and git knows the tree for it, and for clean."""
    wanted = head(repository)
    commit(repository, **{"thing.py": "x = 3\n"})
    tree = bring(repository.as_uri(), wanted)
    assert (tree / "thing.py").read_text() == "x = 2\n"
    assert head(tree) == wanted
    assert git(tree, "status", "--porcelain") == ""


def test_a_fixed_version_needs_no_history(bring: Bring, repository: Path) -> None:
    """Where pyproject.toml says the version, only the commit itself is fetched."""
    assert commits(bring(repository.as_uri(), head(repository))) == 1


def test_a_version_from_tags_is_the_one_it_is(bring: Bring, repository: Path) -> None:
    """A project whose version is dynamic gets its history and tags, and no later commit."""
    wanted = commit(repository, **{"pyproject.toml": DYNAMIC})
    commit(repository, **{"thing.py": "x = 3\n"})
    tree = bring(repository.as_uri(), wanted)
    assert git(tree, "describe", "--tags", "--long") == f"v0.1-2-g{wanted[:7]}"


def test_history_comes_to_a_repository_that_has_none_yet(bring: Bring, repository: Path) -> None:
    """What was fetched without history does not cut that of a commit that needs it, nor the other way round."""
    first = head(repository)
    assert commits(bring(repository.as_uri(), first, "first")) == 1
    second = commit(repository, **{"pyproject.toml": DYNAMIC})
    assert commits(bring(repository.as_uri(), second, "second")) == 3
    third = commit(repository, **{"pyproject.toml": '[project]\nname = "thing"\nversion = "3"\n'})
    assert commits(bring(repository.as_uri(), third, "third")) == 1
    fourth = commit(repository, **{"pyproject.toml": DYNAMIC})
    assert commits(bring(repository.as_uri(), fourth, "fourth")) == 5
    assert commits(bring(repository.as_uri(), second, "again")) == 3
    assert commits(bring(repository.as_uri(), git(repository, "rev-parse", "HEAD~4"), "oldest")) == 1


def test_the_tree_needs_neither_the_cache_nor_the_server(bring: Bring, repository: Path, store: Store) -> None:
    """A backend can ask git for the history when the cache was cleaned and the repository is gone."""
    wanted = commit(repository, **{"pyproject.toml": DYNAMIC})
    tree = bring(repository.as_uri(), wanted)
    for gone in (database(store), repository):
        gone.rename(gone.with_suffix(".gone"))
    assert git(tree, "describe") == f"v0.1-2-g{wanted[:7]}"
    git(tree, "fsck", "--full")


def test_what_is_in_the_cache_is_not_fetched_again(bring: Bring, repository: Path) -> None:
    """The second tree of a commit needs no server; nor does the tree of an earlier commit of a known history."""
    wanted = commit(repository, **{"pyproject.toml": DYNAMIC})
    with serving(repository.parent) as server:
        url = f"http://{server.place}/thing/.git"
        bring(url, wanted, "one")
        before = len(server.asked)
        assert before > 0
        bring(url, wanted, "two", offline=True)
        bring(url, git(repository, "rev-parse", "HEAD~2"), "three", offline=True)
        assert len(server.asked) == before
        with pytest.raises(FetchError, match=r"offline.* the cache lacks it") as caught:
            bring(url, GONE, "four", offline=True)
        assert "`envsync sync --no-offline`" in caught.value.hint
        assert len(server.asked) == before
    assert "envsync sync" in caught.value.hint


def test_a_repository_of_this_host_is_read_offline(bring: Bring, repository: Path) -> None:
    """A `file:` URL needs no network."""
    assert (bring(repository.as_uri(), head(repository), offline=True) / "thing.py").exists()


@pytest.mark.parametrize("smart", [True, False])
@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("content", [DYNAMIC, '[project]\nname = "thing"\nversion = "2"\n'])
def test_servers_that_let_one_do_less_give_the_same_tree(
    bring: Bring, repository: Path, nobodys_home: Path, smart: bool, protocol: int, content: str
) -> None:
    """Plain files, and the protocol that gives no commit but those of branches, take longer, and give the same."""
    wanted = commit(repository, **{"pyproject.toml": content})
    commit(repository, **{"thing.py": "x = 3\n"})
    git(repository, "update-server-info")
    (nobodys_home / ".gitconfig").write_text(f"[protocol]\n\tversion = {protocol}\n")
    with serving(repository.parent, smart=smart) as server:
        tree = bring(f"http://{server.place}/thing/.git", wanted)
    assert (tree / "thing.py").read_text() == "x = 2\n"
    assert head(tree) == wanted
    if content == DYNAMIC:
        assert git(tree, "describe") == f"v0.1-2-g{wanted[:7]}"


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_commit_that_is_gone_is_told_with_what_it_was_found_by(
    bring: Bring, repository: Path, nobodys_home: Path, protocol: int
) -> None:
    """A commit that no branch has may have been force-pushed away: the error says so, and names the reference."""
    (nobodys_home / ".gitconfig").write_text(f"[protocol]\n\tversion = {protocol}\n")
    with pytest.raises(FetchError, match=f"has no commit {GONE}, found as `main`.*force-pushed") as caught:
        bring(repository.as_uri(), GONE, reference="main")
    assert "git ls-remote" in caught.value.hint


def test_a_commit_that_no_branch_has_is_found_by_its_reference(
    bring: Bring, repository: Path, nobodys_home: Path
) -> None:
    """Where a server gives no commit by its hash, what the lock file calls `refs/...` is looked into."""
    (nobodys_home / ".gitconfig").write_text("[protocol]\n\tversion = 0\n")
    wanted = commit(repository, **{"thing.py": "x = 3\n"})
    git(repository, "update-ref", "refs/changes/1/head", wanted)
    git(repository, "commit", "--quiet", "--amend", "--message=Another")
    (nobodys_home / ".gitconfig").write_text("[protocol]\n\tversion = 0\n[uploadpack]\n\thideRefs = refs/none\n")
    tree = bring(repository.as_uri(), wanted, reference="refs/changes/1/head")
    assert head(tree) == wanted


def test_a_repository_of_sha256_is_read(bring: Bring, tmp_path: Path) -> None:
    """A hash of 64 digits is one of a repository of that kind."""
    at = tmp_path / "other"
    at.mkdir()
    git(at, "init", "--quiet", "--object-format=sha256", "--initial-branch=main")
    wanted = commit(at, **{"thing.py": "x = 1\n"})
    assert (bring(at.as_uri(), wanted) / "thing.py").exists()


def test_a_tag_of_that_name_is_not_the_commit(bring: Bring, repository: Path) -> None:
    """The hash of an annotated tag is no commit's, and no tree comes of it."""
    tag = git(repository, "rev-parse", "v0.1")
    with pytest.raises((FetchError, BuildError)):
        bring(repository.as_uri(), tag)


# What is asked of git may not be anything else.


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c 'touch pwned'",
        "me@ext::sh",
        "--upload-pack=touch pwned",
        "-u",
        "/srv/thing",
        "../thing",
        "fd::17",
        "ssh://-oProxyCommand=touch pwned/x",
        "ssh://-x@host/x",
        "https:///x",
        "file://host/x",
        "https://host/x\nhttps://other",
        "https://host/x%0ahttps://other",
        "ftp://host/x",
        "HTTPS:host",
        "",
    ],
)
def test_what_is_no_url_for_git_is_refused(bring: Bring, store: Store, tmp_path: Path, url: str) -> None:
    """Only https, http, ssh, git and file; nothing that git or ssh could take for an option; git is not even asked."""
    with pytest.raises(BuildError, match="git is not to fetch it") as caught:
        bring(url, GONE)
    assert "envsync sync" in caught.value.hint
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("wrong", ["main", "0123456", "--all", "", GONE + "\n", "-" * 40])
def test_only_a_whole_hash_is_a_commit(bring: Bring, repository: Path, wrong: str) -> None:
    """A branch, a short hash or an option in the place of a commit is refused."""
    with pytest.raises(BuildError, match="not the whole hash"):
        bring(repository.as_uri(), wrong)


@pytest.mark.parametrize("wrong", ["--upload-pack=x", "refs/heads/*", "a b", "a:b"])
def test_a_reference_that_is_none_is_refused(bring: Bring, repository: Path, wrong: str) -> None:
    """What git would take for an option or a pattern is no reference."""
    with pytest.raises(BuildError):
        bring(repository.as_uri(), GONE, reference=wrong)


def test_hooks_and_what_a_user_configured_for_others_do_not_run(
    bring: Bring, repository: Path, nobodys_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No hook, no template, no monitor of a user runs, and no variable of git leads to another repository."""
    hook = nobodys_home / "hooks" / "post-checkout"
    for path in (hook, hook.with_name("reference-transaction"), hook.with_name("monitor")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        path.chmod(0o755)
    (nobodys_home / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hook.parent}\n\tfsmonitor = {hook.with_name('monitor')}\n"
        f"[init]\n\ttemplateDir = {nobodys_home}\n"
    )
    other = new_repository(tmp_path / "other")
    before = git(other, "for-each-ref")
    for name, value in {"GIT_DIR": other / ".git", "GIT_WORK_TREE": other, "GIT_INDEX_FILE": other / "i"}.items():
        monkeypatch.setenv(name, str(value))
    wanted = subprocess.check_output(
        ["git", f"--git-dir={repository}/.git", "rev-parse", "HEAD"], text=True, env={"PATH": os.environ["PATH"]}
    ).strip()
    (tmp_path / "ran").unlink()  # they do run for git as it is
    tree = bring(repository.as_uri(), wanted)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name)
    assert (tree / "thing.py").exists()
    assert not (tmp_path / "ran").exists()
    assert git(other, "for-each-ref") == before


def test_without_git_one_is_told(bring: Bring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no git, the error says so, and what helps."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="there is no program `git`") as caught:
        bring("https://git.example/x", GONE)
    assert "module load git" in caught.value.hint


# Who fetches.


@pytest.mark.parametrize("way", ["url", "netrc", "helper"])
def test_a_password_is_known_to_git_alone(
    bring: Bring, repository: Path, nobodys_home: Path, tmp_path: Path, store: Store, way: str
) -> None:
    """From the URL, ~/.netrc or a credential helper: the tree comes, and no file that stays holds the password."""
    with serving(repository.parent, password="hunter2secret") as server:
        user = "me:hunter2secret@" if way == "url" else ""
        if way == "netrc":
            (nobodys_home / ".netrc").write_text("machine 127.0.0.1 login me password hunter2secret\n")
        elif way == "helper":
            (nobodys_home / ".gitconfig").write_text(
                '[credential]\n\thelper = "!f() { echo username=me; echo password=hunter2secret; }; f"\n'
            )
        tree = bring(f"http://{user}{server.place}/thing/.git", head(repository))
    assert (tree / "thing.py").exists()
    kept = [path for root in (tree, tmp_path / "log", Path(store.root)) for path in [root, *root.rglob("*")]]
    assert not [path for path in kept if path.is_file() and b"hunter2secret" in path.read_bytes()]


def test_a_token_in_the_place_of_a_user_is_one(bring: Bring, repository: Path, nobodys_home: Path) -> None:
    """A user without a password is offered with an empty one, unless a helper knows better."""
    (nobodys_home / ".gitconfig").write_text('[credential]\n\thelper = "!f() { echo password=hunter2secret; }; f"\n')
    with serving(repository.parent, password="hunter2secret") as server:
        assert bring(f"http://me@{server.place}/thing/.git", head(repository)).exists()


def test_who_is_not_let_in_is_not_asked(bring: Bring, repository: Path, tmp_path: Path) -> None:
    """A wrong password ends in an error at once, that shows no password, and says how to be let in."""
    with (
        serving(repository.parent, password="hunter2secret") as server,
        pytest.raises(FetchError, match="cannot fetch `thing` from the git repository") as caught,
    ):
        bring(f"http://me:wrongwrong@{server.place}/thing/.git", head(repository))
    assert "wrongwrong" not in f"{caught.value} {caught.value.hint} {(tmp_path / 'log').read_text()}"
    assert "git ls-remote http://127.0.0.1" in caught.value.hint


def test_two_passwords_are_one_repository(bring: Bring, repository: Path, store: Store) -> None:
    """The cache's key has no password: another token finds what was fetched."""
    with serving(repository.parent, password="hunter2secret") as server:
        bring(f"http://me:hunter2secret@{server.place}/thing/.git", head(repository), "one")
        bring(f"http://me:other@{server.place}/thing/.git", head(repository), "two")
    assert database(store).name.startswith(f"{os.geteuid()}-")


def test_a_repository_of_somebody_elses_making_is_not_used(bring: Bring, repository: Path, store: Store) -> None:
    """What others may write to is made anew: what a repository configures, git runs."""
    bring(repository.as_uri(), head(repository), "one")
    where = database(store)
    with open(where / "config", "a") as file:
        file.write('[remote "x"]\n\turl = y\n')
    where.chmod(0o777)
    bring(repository.as_uri(), head(repository), "two")
    assert where.stat().st_mode & 0o077 == 0
    assert "remote" not in (where / "config").read_text()


# Submodules.


def with_submodule(at: Path, url: str, path: str, source: Path) -> str:
    """Add a submodule at its URL, and commit."""
    git(at, "update-index", "--add", "--cacheinfo", f"160000,{head(source)},{path}")
    with open(at / ".gitmodules", "a") as file:
        file.write(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
    git(at, "add", ".gitmodules")
    git(at, "commit", "--quiet", "--message=Add a submodule")
    return head(at)


def test_submodules_come_with_theirs(bring: Bring, repository: Path) -> None:
    """Submodules are brought at their commits, those of theirs too, at relative URLs and others, and once for all."""
    served = repository.parent
    inner = new_repository(served / "inner", **{"inner.h": "1\n"})
    outer = new_repository(served / "outer", **{"outer.h": "1\n"})
    with serving(served, password="hunter2secret") as server:
        with_submodule(outer, "../../inner/.git", "deep/inner", inner)
        wanted = with_submodule(repository, f"http://{server.place}/outer/.git", "outer", outer)
        commit(inner, **{"inner.h": "2\n"})
        url = f"http://me:hunter2secret@{server.place}/thing/.git"
        tree = bring(url, wanted)
        before = len(server.asked)
        again = bring(url, wanted, "again", offline=True)
        assert len(server.asked) == before
    for place in (tree, again):
        assert (place / "outer/deep/inner/inner.h").read_text() == "1\n"
        assert git(place, "status", "--porcelain") == ""


def test_a_project_in_a_submodule_has_its_history(bring: Bring, repository: Path) -> None:
    """Where the subdirectory is in a submodule, the version may come from that one's tags."""
    inner = new_repository(repository.parent / "inner", **{"pyproject.toml": DYNAMIC})
    git(inner, "tag", "v7")
    commit(inner)
    with serving(repository.parent) as server:
        wanted = with_submodule(repository, f"http://{server.place}/inner/.git", "in/ner", inner)
        tree = bring(f"http://{server.place}/thing/.git", wanted, subdirectory="in/ner")
    assert git(tree / "in/ner", "describe", "--tags").startswith("v7-1-g")


@pytest.mark.parametrize("url", ["file", "../inner", "path", "ext::sh -c false"])
def test_a_submodule_at_a_path_is_refused(bring: Bring, repository: Path, url: str) -> None:
    """A repository cannot have us read what is on this host, nor run commands."""
    inner = new_repository(repository.parent / "inner")
    url = {"file": inner.as_uri(), "path": str(inner)}.get(url, url)
    wanted = with_submodule(repository, url, "inner", inner)
    with pytest.raises(BuildError, match="git submodule `inner`") as caught:
        bring(repository.as_uri(), wanted)
    assert "`envsync sync --no-install-package thing`" in caught.value.hint


def test_a_submodule_that_is_not_to_be_updated_stays_away(bring: Bring, repository: Path) -> None:
    """`update = none` means an empty directory, as with git."""
    inner = new_repository(repository.parent / "inner")
    (repository / ".gitmodules").write_text('[submodule "inner"]\n\tupdate = none\n')
    wanted = with_submodule(repository, inner.as_uri(), "inner", inner)
    assert os.listdir(bring(repository.as_uri(), wanted) / "inner") == []


# Files that git-lfs keeps.


def test_without_git_lfs_one_is_told(bring: Bring, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the lock file wants the files and there is no git-lfs, nothing is fetched."""
    program = subprocess.run(["git", "lfs", "version"], capture_output=True, check=False)
    if program.returncode == 0:
        pytest.skip("there is a git-lfs")
    with pytest.raises(BuildError, match="there is no program `git-lfs`") as caught:
        bring(repository.as_uri(), head(repository), lfs=True)
    assert "git lfs version" in caught.value.hint


def test_pointers_stay_pointers_unless_wanted(bring: Bring, repository: Path, nobodys_home: Path) -> None:
    """A user's git-lfs is told not to fetch files that the lock file does not ask for."""
    wanted = commit(repository, **{".gitattributes": "*.bin filter=lfs\n", "a.bin": "pointer\n"})
    (nobodys_home / ".gitconfig").write_text(
        '[filter "lfs"]\n\tsmudge = "test -n \\"$GIT_LFS_SKIP_SMUDGE\\" && cat"\n\trequired = true\n'
    )
    assert (bring(repository.as_uri(), wanted) / "a.bin").read_text() == "pointer\n"
