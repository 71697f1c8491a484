"""A commit of a git repository becomes a tree, with its submodules, and with what git-lfs keeps if that is wanted.

`git_program` is how git is called, `repositories` what is fetched and kept. A backend finds a `.git` in the tree that
works without network: versions come from tags (setuptools-scm, versioneer). Submodules are repositories like any other,
fetched and kept so; those at a path of this host are refused, as by git, for a repository could name what its author
may not read. No hook runs, and nobody is asked for anything. The filters that a user has configured do run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from envsync.building import repositories, supervised
from envsync.building.git_program import Answer, Git, remote_of
from envsync.building.repositories import Wanted
from envsync.building.supervised import Run
from envsync.errors import BuildError, FilesystemError, hints
from envsync.lockfile.target import Source
from envsync.store import trash
from envsync.store.directories import Directories
from envsync.system import paths

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFERENCE = re.compile(r"(?!-)[^\x00-\x20\x7f~^:?*\[\\]*")
_LFS = {
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
}
"""What `git lfs install` configures."""


_DAMAGED = (
    "unable to read",
    "corrupt",
    "inflate",
    "bad object",
    "not a tree",
    "packfile",
    "missing",
    "not a git repository",
)
"""In what git says when something is missing in a repository that was whole."""


class _Bringing(NamedTuple):
    """How trees are brought for one package."""

    git: Git
    store: Directories
    lfs: bool


def check_out(
    source: Source,
    into: str,
    *,
    store: Directories,
    package: str,
    offline: bool,
    log: str,
    checkpoint: Callable[[], object],
    run: Run = supervised.run,
) -> None:
    """Bring the tree of a commit: all of it, for the caller to go to the subdirectory.

    May wait, for others that fetch from the same repository. If it raises, part of `into` may be there.

    :param source: a git repository's
    :param into: an absolute path where nothing is yet, in a directory that is ours alone
    :param store: the cache that keeps what was fetched
    :param package: its name, for messages
    :param offline: nothing is fetched: the commit is in the cache, or in a repository at a `file:` URL
    :param log: the file that gets what git says, without secrets
    :param checkpoint: called about every 0.1 s; what it raises ends git, and goes on
    :raises FetchError: the commit, or a submodule, cannot be fetched, or is not there any more
    :raises BuildError: there is no git, or no git-lfs that is needed, or git may not or cannot do it
    :raises FilesystemError: the cache or the tree cannot be written
    """
    commit = source.commit.lower()
    if not _COMMIT.fullmatch(commit) or not _REFERENCE.fullmatch(source.reference):
        hint = "have it locked again by the tool that made the lock file; `git ls-remote URL` shows whole hashes"
        raise BuildError(package, f"`{source.commit}` is not the whole hash of a git commit", hint=hint)
    with _scratch(store) as scratch:
        git = Git(package=package, log=log, scratch=scratch, checkpoint=checkpoint, run=run)
        if offline:
            git.environ["GIT_ALLOW_PROTOCOL"] = "file"
        if source.lfs:
            _demand_lfs(git)
        try:
            remote = remote_of(source.place)
        except ValueError as error:
            hint = f"have the lock file made again with an https or ssh URL; or {hints.of_build(package)}"
            raise BuildError(package, f"git is not to fetch it: {error}", hint=hint) from None
        wanted = Wanted(remote, commit, source.reference, source.subdirectory, offline)
        _bring(_Bringing(git, store, source.lfs), wanted, into)


@contextmanager
def _scratch(store: Directories) -> Iterator[str]:
    path = store.staging("git")
    try:
        os.makedirs(store.tmp, exist_ok=True)
        os.mkdir(path, 0o700)
    except OSError as error:
        raise FilesystemError("make directory", path, error) from error
    try:
        yield path
    finally:
        trash.remove_tree(path)


def _demand_lfs(git: Git) -> None:
    """:raises BuildError: there is no git-lfs"""
    if not git.call("lfs", "version", at=git.scratch):
        hint = "install git-lfs (https://git-lfs.com), so that `git lfs version` works; then `envsync sync`"
        raise BuildError(git.package, "its files are kept by git-lfs, and there is no program `git-lfs`", hint=hint)


def _bring(bringing: _Bringing, wanted: Wanted, into: str) -> None:
    """Bring a tree and those of its submodules."""
    git = bringing.git
    git.introduce(wanted.remote)
    repositories.bring(git, wanted, into, bringing.store)
    answer = _check_out(git, wanted, into)
    if answer.says(*_DAMAGED) and not answer:
        trash.remove_tree(into)
        repositories.bring(git, wanted, into, bringing.store, anew=True)
        answer = _check_out(git, wanted, into)
    if not answer:
        hint = f"`df -h {os.path.dirname(into)}` says how much room there is; `less {git.log}` shows what git has said"
        raise git.failed(f"cannot check out commit {wanted.commit}", answer, hint=hint)
    if bringing.lfs:
        _bring_large_files(bringing, wanted, into)
    if os.path.lexists(f"{into}/.gitmodules"):
        for submodule, path in _submodules(git, wanted, into):
            _bring(bringing, submodule, path)


def _check_out(git: Git, wanted: Wanted, into: str) -> Answer:
    """Check the commit out, and see that it was that."""
    answer = git.told("checkout", "--quiet", "--force", "--detach", wanted.commit, at=into)
    if answer:
        head = git.call("rev-parse", "--verify", "HEAD^{commit}", at=into)
        if wanted.commit not in head.text.splitlines():
            raise git.failed(f"it is not commit {wanted.commit} that was checked out", head)
    return answer


def _bring_large_files(bringing: _Bringing, wanted: Wanted, into: str) -> None:
    """Replace the pointers of git-lfs by the files; they are kept in the cache, beside the repository."""
    git = bringing.git
    kept = repositories.place_of(bringing.store, wanted.remote) + ".lfs"
    # In a file: a repository of this host is asked by another git-lfs, which would take settings for its own.
    for key, value in {**_LFS, "remote.origin.url": wanted.remote.url, "lfs.storage": kept}.items():
        git.call("config", key, value, at=into)
    words = ("lfs", "checkout") if wanted.offline and not wanted.remote.is_local else ("lfs", "pull")
    answer = git.told(*words, at=into)
    if not answer:
        raise git.not_fetched(wanted.remote, answer)
    listed = git.call("lfs", "ls-files", at=into)
    git.call("config", "--unset", "lfs.storage", at=into)
    if missing := [line for line in listed.text.splitlines() if re.match(r"[0-9a-f]+ - ", line)]:
        name = missing[0].split(" - ", 1)[1]
        hint = "bring them once where the network is, with the same cache: `envsync sync --no-offline`"
        raise BuildError(git.package, f"{len(missing)} files that git-lfs keeps are missing, `{name}` first", hint=hint)


def _submodules(git: Git, wanted: Wanted, into: str) -> Iterator[tuple[Wanted, str]]:
    """Yield what the submodules of a tree are, and where they go, as `git submodule update` takes them."""
    git.call("config", "remote.origin.url", wanted.remote.url, at=into)  # what their URLs may be relative to
    answer = git.told("submodule", "init", at=into)
    if not answer:
        raise git.failed("cannot tell its submodules", answer)
    known = _settings(git.call("config", "--null", "--file", ".git/config", "--list", at=into))
    paths = _settings(git.call("config", "--null", "--blob", "HEAD:.gitmodules", "--list", at=into))
    names = {path: key[len("submodule.") : -len(".path")] for key, path in paths.items() if key.endswith(".path")}
    for line in git.call("ls-tree", "-r", "-z", "HEAD", at=into).text.split("\0"):
        entry, _, path = line.partition("\t")
        kind, _, commit = entry.partition(" commit ")
        url = known.get(f"submodule.{names.get(path)}.url")
        if kind.endswith("160000") and url and known.get(f"submodule.{names[path]}.update") != "none":
            yield _submodule(git, wanted, path, url, commit), _empty_directory(git, into, path)


def _settings(answer: Answer) -> dict[str, str]:
    """Return what `git config --null --list` has said."""
    pairs = (entry.partition("\n") for entry in answer.text.split("\0"))
    return {key: value for key, _, value in pairs}


def _submodule(git: Git, wanted: Wanted, path: str, url: str, commit: str) -> Wanted:
    """Return what is wanted of a submodule: its history only if the project is in it."""
    try:
        remote = remote_of(url)
        problem = "it is at a path of this host, which git does not allow" if remote.is_local else ""
    except ValueError as error:
        problem = str(error)
    if problem:
        hint = f"{hints.of_build(git.package)}; or lock a commit whose submodules have https or ssh URLs"
        raise BuildError(git.package, f"cannot bring its git submodule `{path}`: {problem}", hint=hint)
    inside = f"{wanted.subdirectory or ''}/".removeprefix(f"{path}/")
    below = inside.rstrip("/") if inside != f"{wanted.subdirectory or ''}/" else None
    return Wanted(remote, commit, "", below, wanted.offline)


def _empty_directory(git: Git, into: str, path: str) -> str:
    """Return where a submodule goes: git has made a directory for it, and nothing leads elsewhere."""
    place = f"{into}/{path}"
    try:
        if paths.realpath(place) == f"{paths.realpath(into)}/{path}" and not os.listdir(place):
            return place
    except OSError:
        pass  # it is none
    raise BuildError(git.package, f"its git submodule `{path}` is not at an empty directory of its tree")
