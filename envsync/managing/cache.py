"""`envsync.cache_directory`, `cache_contents`, `add_to_cache` and `prune_cache`: the cache that a sync would use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Unpack

from envsync.errors import FilesystemError
from envsync.launch import request
from envsync.launch.progress import Report, quiet
from envsync.leading.sync_cache import cache_needed
from envsync.library import blocking
from envsync.locks import cache_lock
from envsync.store import clean, users
from envsync.store.inventory import UNFINISHED, CacheItem, Rules, inventory, measure, prunable
from envsync.store.trash import remove_tree

if TYPE_CHECKING:
    from envsync.launch.options import Settings
    from envsync.leading.provision import Provision
    from envsync.library.blocking import SyncOptions

UNUSED_SECONDS = 30 * 86400.0
"""After which `prune_cache` takes a thing for unneeded, if nothing else is said."""


def cache_directory(cache_dir: str | os.PathLike[str] | None = None) -> str:
    """Return the path of the cache: the one that is named, or that variables and files say. It need not be there.

    :raises UsageError: there is none: HOME is not set, say
    """
    return root_of({} if cache_dir is None else {"cache_dir": os.fsdecode(cache_dir)})


def cache_contents(cache_dir: str | os.PathLike[str] | None = None) -> list[CacheItem]:
    """Return all that can be removed from a cache, with its size and when it was used last. Disturbs nobody."""
    return list(inventory(cache_directory(cache_dir)))


def add_to_cache(
    lock: str | os.PathLike[str], *, report: Report | None = None, **options: Unpack[SyncOptions]
) -> Provision:
    """Bring into the cache all that a lock file needs, and make no environment.

    :param report: is told how far it is, from any thread
    :param options: as for `envsync.sync`; `env` is of no account
    :raises EnvsyncError: as `envsync.sync`; nothing but the cache was touched
    """
    from envsync.leading.provision import provide

    asked = request.resolve({**blocking.given(lock, options), "quiet": True}, os.environ, placed=False)
    return provide(asked, quiet if report is None else report)


def prune_cache(
    *,
    older_than: float | None = None,
    max_size: int | None = None,
    unused_for: float | None = None,
    dry_run: bool = False,
    timeout: float | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[CacheItem]:
    """Remove from a cache what was not used for long, or what is too much; never what an environment links to by name.

    Waits for syncs that use the cache, and they for the renames of this. Killed in the middle, it leaves a cache that
    works.

    :param older_than: seconds since its last use; default: 30 days, if neither of the next two is given
    :param max_size: bytes that may stay; what was used least lately goes first
    :param unused_for: seconds in which nobody has used or read it: for a cache that others link to who cannot say so
    :param dry_run: remove nothing, and say what would be
    :param timeout: seconds to wait for syncs; default: no limit
    :returns: what was removed
    :raises WaitTimeoutError: syncs use it for longer than `timeout`
    :raises FilesystemError: something could not be removed; the rest is
    """
    root = cache_directory(cache_dir)
    if older_than is None and max_size is None and unused_for is None:
        older_than = UNUSED_SECONDS
    chosen = prunable(inventory(root), rules(root, older_than, max_size, unused_for))
    if dry_run:
        return chosen
    removed = remove(root, lambda: clean.not_linked(root, chosen), unless_used=True, timeout=timeout)
    if removed.refused is not None:
        raise removed.refused
    return removed.items


for _function in (cache_directory, cache_contents, add_to_cache, prune_cache):
    _function.__module__ = "envsync"


class Removed(NamedTuple):
    """What became of what was to be removed from a cache.

    :ivar items: what is gone
    :ivar trash: the same, measured when nobody could use it any more
    :ivar stays: what of it could not be deleted
    :ivar refused: why something is still where it was
    """

    items: list[CacheItem]
    trash: list[CacheItem]
    stays: list[CacheItem]
    refused: FilesystemError | None


def root_of(settings: Settings) -> str:
    """Find out which cache is meant: the one that a sync here would use."""
    return cache_needed(request.Request(request.settings_here(settings, os.environ), "", "", ".venv"))


def rules(root: str, older_than: float | None, max_size: int | None, unused_for: float | None) -> Rules:
    """Return what may go from a cache, of which others may have more to say."""
    return Rules(older_than, max_size, users.used(root), unused_for, users.has_strangers(root))


def remove(
    root: str,
    choose: Callable[[], Iterable[CacheItem]],
    *,
    unless_used: bool,
    timeout: float | None,
    tell: Callable[[str], None] = lambda _: None,
) -> Removed:
    """Remove things from a cache. Its lock is held for the renames alone.

    :param choose: called with the lock held
    :param unless_used: keep what was used since it was looked at
    :param tell: is told who is waited for
    :raises WaitTimeoutError: syncs use it for longer than `timeout`
    """
    done = clean.Removal([], [], [], [])
    if os.path.isdir(f"{root}/v1"):
        with cache_lock.exclude(root, tell, timeout=timeout):
            done = clean.set_aside(root, list(choose()), unless_used=unless_used)
    trash = _measured(root, done.trash)
    for name in done.trash:
        remove_tree(f"{root}/v1/{UNFINISHED}/{name}")
    return Removed(done.removed, trash, _measured(root, done.trash), _refusal(done))


def _measured(root: str, names: Iterable[str]) -> list[CacheItem]:
    return [item for name in names if (item := measure(root, UNFINISHED, name)) is not None]


def _refusal(done: clean.Removal) -> FilesystemError | None:
    if not done.refused:
        return None
    from shlex import quote

    path, error = done.refused[0]
    owners = f"`ls -la {quote(os.path.dirname(path))}` says who owns them"
    hint = f"so it is with {len(done.refused)} in all: {owners}"
    return FilesystemError("remove", path, error, hint=hint)
