"""Git repositories that were fetched, one for each URL and user, in the cache.

    <cache>/v1/git/<uid>-<hash>/    bare; the hash is that of the URL without user and password
    <cache>/v1/locks/git-<uid>-<hash>

Our own user's only, and nobody else may write to them: what a repository configures, git runs. Git looks at that too,
for it finds the repository by its directory (`safe.directory`).

In one are, by reference:

    refs/envsync/whole/<commit>      a commit with its history, and the tags in that
    refs/envsync/shallow/<commit>    a commit without
    refs/envsync/coming/<commit>     one whose tags may be missing still
    refs/envsync/heads/              branches of a server that gives no commits by their hash

A commit is only fetched without its history where none of those that have theirs reaches it: they would lose theirs.
Git makes a reference when all that it leads to is there. So whoever dies while fetching leaves locks and parts of
files, which the next one removes; its git may be about to be ended still (`envsync.building.supervisor`), and is given
two seconds for that. If something else is missing, taken by a purge or a crash of the host, git fails, `git fsck` says
so, and the repository is made anew.

Whoever wants a commit gets links to the objects, or copies: a repository of its own, without network and without us.
The lock is held from before the commit is looked for until then, and no other is waited for with it in hand. Where no
lock can be had, a repository is fetched that nobody else knows.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

from envsync.building.git_program import Answer, Git, Remote
from envsync.errors import BuildError, FetchError, FilesystemError, LockingError
from envsync.locks import flock
from envsync.store import trash
from envsync.store.directories import Directories
from envsync.system import atomic, groups, native, processes

LOOK_SECONDS = 0.1
"""Between two tries to get a lock."""
DYING_SECONDS = 2.0
"""For which what a dead fetch has left may still be written to."""
OURS = "refs/envsync"
_COPIED = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EACCES})
"""What link(2) answers where files cannot be linked."""
_VERSIONED_BY_GIT = (
    "scm",
    "vcs",
    "dynamic-versioning",
    "versioningit",
    "versioneer",
    "dunamai",
    "git-version",
    "gitver",
)
"""What pyproject.toml speaks of whose version may come from git, whatever it says itself."""
_DEFINITIVE = (
    *(
        "not our ref",
        "could not read Username",
        "could not read Password",
        "Authentication failed",
        "Permission denied",
    ),
    *("Could not resolve", "Host key verification", "unable to access", "does not appear to be a git repository"),
    *("does not exist", "not allowed", "dubious ownership", "timed out", "Connection", "No space left", "cannot run"),
)
"""In what git says: to ask in another way is pointless."""


class Wanted(NamedTuple):
    """A commit to bring.

    :ivar commit: its whole hash
    :ivar reference: the branch or tag by which it was found, for messages; `refs/...` is fetched if nothing else helps
    :ivar subdirectory: where the project is; None: it is no project, and needs no history
    :ivar offline: nothing may be fetched, but from this host's own files
    """

    remote: Remote
    commit: str
    reference: str = ""
    subdirectory: str | None = None
    offline: bool = False


def bring(git: Git, wanted: Wanted, into: str, store: Directories, *, anew: bool = False) -> None:
    """Make a repository with a commit and what it needs, to be checked out.

    :param into: its work tree, which is not there before; empty but for `.git` afterwards
    :param anew: what the cache has is damaged
    :raises FetchError: it cannot be fetched; or the commit is not there any more
    :raises BuildError: git fails at something else
    :raises FilesystemError: the cache cannot be written to
    """
    with _turn(git, wanted, store) as place:
        for again in (anew, True):
            if again:
                trash.put_aside(place, store.staging(trash.PREFIX))
            new = _prepare(git, wanted, place, store)
            try:
                _fill(git, wanted, place)
                break
            except (FetchError, BuildError):
                if new or git.call("fsck", "--connectivity-only", "--no-dangling", at=place):
                    raise
        _hand_over(git, wanted, place, into)
        os.utime(place)  # it was used: `envsync cache prune` looks at that


def place_of(store: Directories, remote: Remote) -> str:
    """Return where what was fetched from a repository is kept for this user."""
    return f"{store.root}/v1/git/{processes.user()}-{sha256(remote.url.encode()).hexdigest()[:32]}"


@contextmanager
def _turn(git: Git, wanted: Wanted, store: Directories) -> Iterator[str]:
    """Wait until nobody else is at the repository, and yield where it is."""
    place = place_of(store, wanted.remote)
    name = os.path.basename(place)
    path = f"{store.locks}/git-{name}"
    held = None
    try:
        groups.make_lock_file(store.root, path)
        while (held := flock.acquire_nowait(path, shared=False)) is None:
            git.checkpoint()
            time.sleep(LOOK_SECONDS)
    except (LockingError, FilesystemError):
        pass  # no lock that works
    try:
        yield place if held else f"{git.scratch}/repository-{name}"
    finally:
        if held:
            held.release()


def _prepare(git: Git, wanted: Wanted, place: str, store: Directories) -> bool:
    """See to it that there is a repository that is ours and that nobody is writing to. Tells whether it is new."""
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        _make(git, wanted, place)
        return True
    if status.st_uid != processes.user():
        hint = f"let its owner remove it, or name another cache: `envsync sync --cache-dir {store.root}-2`"
        raise BuildError(git.package, f"the git repository `{place}` in the cache is another user's", hint=hint)
    if not stat.S_ISDIR(status.st_mode) or status.st_mode & native.BY_OTHERS:
        trash.put_aside(place, store.staging(trash.PREFIX))  # others could have written to it
        _make(git, wanted, place)
        return True
    _tidy(git, place)
    return False


def _make(git: Git, wanted: Wanted, place: str) -> None:
    """Make an empty repository: aside, then renamed into its place."""
    aside = f"{git.scratch}/new"
    try:
        atomic.make_directory(os.path.dirname(place))
        os.mkdir(aside, 0o700)
        answer = git.call("init", "--quiet", "--bare", "--template=", *_format(wanted), aside, at=git.scratch)
        if not answer:
            raise git.failed("cannot make a git repository", answer)
        groups.grant(os.path.dirname(place), groups.bits(os.path.dirname(os.path.dirname(os.path.dirname(place)))))
        atomic.move(aside, place)
    except OSError as error:
        raise FilesystemError("make git repository", place, error) from error


def _format(wanted: Wanted) -> list[str]:
    return ["--object-format=sha256"] if len(wanted.commit) == 64 else []


def _tidy(git: Git, place: str) -> None:
    """Remove what a fetch that was killed has left, once it is certain that it is dead."""
    until = time.monotonic() + DYING_SECONDS
    while (left := list(_left(place))) and time.monotonic() < until:
        git.checkpoint()
        time.sleep(LOOK_SECONDS)
    for path in left:
        trash.remove_tree(path)


def _left(place: str) -> Iterator[str]:
    """Name the locks and parts of files in a repository."""
    for directory, _, names in os.walk(place):
        for name in names:
            if name.endswith((".lock", ".keep")) or name.startswith(("tmp_", "shallow_")):
                yield f"{directory}/{name}"


def _fill(git: Git, wanted: Wanted, place: str) -> None:
    """See to it that the commit is there, with its history if the project's version may come from that."""
    if _is_whole(git, wanted, place):
        return
    if not _has(place, "shallow", wanted.commit):
        _fetch(git, wanted, place, shallow=True)
    if not _has(place, "whole", wanted.commit) and _needs_history(git, wanted, place):
        _fetch(git, wanted, place, shallow=False)


def _has(place: str, kind: str, commit: str) -> bool:
    return os.path.exists(f"{place}/{OURS}/{kind}/{commit}")  # no reference of ours is ever packed


def _is_whole(git: Git, wanted: Wanted, place: str) -> bool:
    """Tell whether a commit is there with its history: as such, or in that of another."""
    if _has(place, "whole", wanted.commit):
        return True
    if not os.path.isdir(f"{place}/{OURS}/whole"):
        return False
    reached = git.call("for-each-ref", "--count=1", "--contains", wanted.commit, f"{OURS}/whole", at=place)
    return bool(reached and f"{OURS}/whole/" in reached.text and _mark(git, wanted, place))


def _mark(git: Git, wanted: Wanted, place: str) -> Answer:
    """Say that a commit is there with its history."""
    return git.call("update-ref", f"{OURS}/whole/{wanted.commit}", wanted.commit, at=place)


def _needs_history(git: Git, wanted: Wanted, place: str) -> bool:
    """Tell whether a project's version may depend on tags and on how many commits there are since."""
    if wanted.subdirectory is None:
        return False
    path = f"{wanted.subdirectory.strip('/')}/pyproject.toml".lstrip("/")
    answer = git.call("cat-file", "blob", f"{wanted.commit}:{path}", at=place)
    return not (answer and has_fixed_version(answer.text))


def has_fixed_version(pyproject: str) -> bool:
    """Tell whether a pyproject.toml says its project's version itself. Pure."""
    try:
        content = tomllib.loads(pyproject)
    except (ValueError, RecursionError):
        return False
    if any(word in pyproject.lower().replace("_", "-") for word in _VERSIONED_BY_GIT):
        return False
    project, tool = content.get("project"), content.get("tool")
    if isinstance(project, dict) and "version" in project:
        return isinstance(project["version"], str)
    poetry = tool.get("poetry") if isinstance(tool, dict) else None
    dynamic = isinstance(project, dict) and "version" in project.get("dynamic", ()) and not isinstance(poetry, dict)
    return not dynamic and isinstance(poetry, dict) and isinstance(poetry.get("version"), str)


def _fetch(git: Git, wanted: Wanted, place: str, *, shallow: bool) -> None:
    """Fetch the commit, in the ways that servers let one.

    :raises FetchError: in none of them
    """
    if wanted.offline and not wanted.remote.is_local:
        raise _not_prepared(git, wanted, place)
    gone = False
    answer = Answer(1, "")
    for words in _ways(wanted, place, shallow=shallow):
        answer = git.told("fetch", "--force", "--no-recurse-submodules", *words, at=place)
        if answer and any(_has(place, kind, wanted.commit) for kind in ("whole", *["shallow"] * shallow)):
            return
        if answer:
            gone = not git.call("cat-file", "-e", f"{wanted.commit}^{{commit}}", at=place)
            if not gone and _mark(git, wanted, place):
                return
        elif answer.says(*_DEFINITIVE):
            gone = answer.says("not our ref")
            break
    raise _gone(git, wanted) if gone else git.not_fetched(wanted.remote, answer)


def _ways(wanted: Wanted, place: str, *, shallow: bool) -> Iterator[list[str]]:
    """Yield what is asked for, one after the other: the commit alone; with its history; all branches and tags."""
    url, commit = wanted.remote.url, wanted.commit
    if shallow:
        yield ["--depth=1", "--no-tags", "--", url, f"+{commit}:{OURS}/shallow/{commit}"]
    whole = ["--unshallow"] if _is_shallow(place) else []
    yield [*whole, "--", url, f"+{commit}:{OURS}/coming/{commit}"]  # the tags come after that: no mark yet
    named = [f"+{wanted.reference}:{OURS}/named"] if wanted.reference.startswith("refs/") else []
    yield [*whole, "--tags", "--prune", "--", url, f"+refs/heads/*:{OURS}/heads/*", *named]


def _is_shallow(place: str) -> bool:
    try:
        return os.stat(f"{place}/shallow").st_size > 0
    except OSError:
        return False


def _shown(wanted: Wanted) -> str:
    found = f", found as `{wanted.reference}` when it was locked," if wanted.reference else ""
    return f"commit {wanted.commit}{found}"


def _gone(git: Git, wanted: Wanted) -> FetchError:
    return FetchError(
        f"cannot fetch `{git.package}`: its git repository `{wanted.remote.url}` has no {_shown(wanted)} any more; "
        "it may have been force-pushed away",
        hint=f"`git ls-remote {wanted.remote.url}` shows what there is; lock again what is wanted of it",
        retryable=False,
    )


def _not_prepared(git: Git, wanted: Wanted, place: str) -> FetchError:
    lacks = (
        "has it without the history that its version comes from"
        if _has(place, "shallow", wanted.commit)
        else "lacks it"
    )
    return FetchError(
        f"cannot fetch `{git.package}` offline: {_shown(wanted)} is to come from the git repository "
        f"`{wanted.remote.url}`, and the cache {lacks}",
        hint="build it once where the network is, with the same cache: `envsync sync --no-offline`",
        retryable=False,
    )


def _hand_over(git: Git, wanted: Wanted, place: str, into: str) -> None:
    """Make the repository of a work tree, with links to the objects, and the tags."""
    answer = git.call("init", "--quiet", "--template=", *_format(wanted), into, at=git.scratch)
    if not answer:
        raise git.failed("cannot make a git repository", answer)
    tags = git.call("for-each-ref", "--format=%(objectname) %(refname)", "refs/tags", at=place)
    lines = [line for line in tags.text.splitlines() if " refs/tags/" in line]
    try:
        for directory, _, names in os.walk(f"{place}/objects"):
            destination = f"{into}/.git/objects{directory[len(place) + len('/objects') :]}"
            os.makedirs(destination, exist_ok=True)
            git.checkpoint()
            for name in names:
                _link(f"{directory}/{name}", f"{destination}/{name}")
        if _is_shallow(place):
            shutil.copyfile(f"{place}/shallow", f"{into}/.git/shallow")
        with open(f"{into}/.git/packed-refs", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise FilesystemError("make git repository", into, error) from error


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError as error:
        if error.errno not in _COPIED:
            raise
        shutil.copyfile(source, destination)
