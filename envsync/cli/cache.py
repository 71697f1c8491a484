"""What `cache dir`, `size`, `add`, `clean`, `prune` and `verify` do and print."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from envsync.cli.amounts import parse_age, parse_size, refuse
from envsync.cli.tell import completed_by
from envsync.errors import FilesystemError, UsageError
from envsync.launch import finding, options, request
from envsync.launch.messages import say, show, show_json
from envsync.locks import cache_lock
from envsync.managing import cache as managing
from envsync.store import clean, users
from envsync.store.clean import VerifiedEntry
from envsync.store.inventory import WHEELS, CacheItem, Rules, inventory, prunable
from envsync.store.store import Store
from envsync.system import native
from envsync.waiting.shortening import human

if TYPE_CHECKING:
    from envsync.launch.options import Settings

DEFAULT_AGE = "30d"
"""What `prune` removes unless it is told otherwise: what was not used for so long."""
SAY_AGAIN_SECONDS = 60.0
LARGEST = 5
"""How many wheels `size` names."""
NAMED = 3
"""How many directories that cannot be removed are named."""
EXIT_DAMAGED = 1
LEAST_UNUSED_SECONDS = 2 * 86400


def directory(settings: Settings) -> int:
    """Print the path of the cache."""
    root = managing.root_of(settings)
    if settings.get("json"):
        show_json({"cache": root})
    else:
        show(root)
    return 0


def size(settings: Settings) -> int:
    """Say how large the cache is, and what would go."""
    root = managing.root_of(settings)
    items = list(inventory(root))
    old = prunable(items, Rules(parse_age(DEFAULT_AGE), linked=users.used(root)))
    wheels = [item for item in items if item.kind == WHEELS]
    if settings.get("json"):
        show_json({"cache": root, "all": _sums(items), "prunable": _sums(old)})
        return 0
    show(f"`{root}`: {_described(_sums(items))}")
    prune = completed_by("`envsync cache prune`", settings, options.CACHE)
    show(f"not used for {DEFAULT_AGE}, or left over, so that {prune} removes it: {_described(_sums(old))}")
    for item in sorted(wheels, key=lambda item: item.bytes, reverse=True)[:LARGEST]:
        show(f"{human(item.bytes):>10}  {item.wheel or item.name}")
    return 0


def add(settings: Settings) -> int:
    """Bring into the cache what a lock file needs, and make no environment.

    For those who sync later: without the network, or from a cache that they cannot write to.
    """
    from envsync.cli.display import Display
    from envsync.leading.provision import provide

    finding.go_to(settings, os.environ)
    asked = request.resolve(settings, os.environ, placed=False)
    with Display(asked) as display:
        done = provide(asked, display)
    if asked.flag("json"):
        show_json(done._asdict())
    elif not asked.flag("quiet"):
        show(f"`{done.cache}` has all {len(done.wheels)} wheels of `{asked.lock}` for `{done.python}`")
        if done.left:
            show(f"what is linked to its tree is left to each environment: {', '.join(done.left)}")
    return 0


def remove_all(settings: Settings) -> int:
    """Remove all that is in the cache, but for what environments link to."""
    root = managing.root_of(settings)
    strangers = users.has_strangers(root)
    if strangers:
        _tell_of_strangers(settings, root)
    if settings.get("dry_run"):
        linked = users.used(root)
        gone = [item for item in inventory(root) if item.kind != WHEELS or not (strangers or item.name in linked)]
        return _tell(settings, root, "would remove", gone)
    return _remove(settings, root, lambda: clean.everything(root), unless_used=False)


def prune(settings: Settings) -> int:
    """Remove what was not used for long, or what is too much."""
    root = managing.root_of(settings)
    merged = request.settings_here(settings, os.environ)
    age, limit, unused = merged.get("older_than"), merged.get("max_size"), merged.get("unused_for")
    if age is None and limit is None and unused is None:
        age = DEFAULT_AGE
    rules = managing.rules(
        root,
        None if age is None else parse_age(str(age)),
        None if limit is None else parse_size(str(limit)),
        None if unused is None else _parse_unused(str(unused), root),
    )
    chosen = prunable(inventory(root), rules)
    if rules.strangers and unused is None:
        _tell_of_strangers(settings, root)
    if settings.get("dry_run"):
        return _tell(settings, root, "would remove", chosen)
    return _remove(settings, root, lambda: clean.not_linked(root, chosen), unless_used=True)


def verify(settings: Settings) -> int:
    """Compare all files in the cache with their hashes, and remove what differs. Exits with 1 if anything did."""
    root = managing.root_of(settings)
    count = 0
    removed: list[VerifiedEntry] = []
    refused: list[tuple[VerifiedEntry, str]] = []
    lock = cache_lock.share(root, narrator(settings)) if os.path.isdir(root) else None
    try:
        for verified in clean.verify(root):
            count += not verified.bytecode
            if not verified.problem:
                continue
            if not verified.bytecode and verified.name in users.used(root):
                refused.append((verified, "environments link to it: run `envsync check --repair` in them"))
                continue
            try:
                Store(root).discard_path(f"{root}/v1/{verified.path}")
                removed.append(verified)
            except FilesystemError as error:
                refused.append((verified, error.message))
    finally:
        if lock is not None:
            lock.release()
    if settings.get("json"):
        found = {"removed": [item._asdict() for item in removed], "refused": [item._asdict() for item, _ in refused]}
        show_json({"cache": root, "wheels": count, **found})
    else:
        for item in removed:
            again = "compiled" if item.bytecode else "fetched"
            what = f"{'bytecode of ' if item.bytecode else ''}`{item.wheel or item.name}`"
            show(f"removed {what}: {item.problem}; it is {again} again when it is needed")
        for item, cause in refused:
            show(f"damaged: `{item.wheel or item.name}`: {item.problem}; {cause}")
        wheels = sum(not item.bytecode for item in removed)
        show(f"`{root}`: {count} wheels verified, {wheels} removed")
    return EXIT_DAMAGED if removed or refused else 0


def _tell_of_strangers(settings: Settings, root: str) -> None:
    if not settings.get("quiet"):
        say(
            f"note: others may link to the wheels in `{root}`, and cannot say so: they stay, but for what nobody has "
            "read for long: `envsync cache prune --unused-for 90d`"
        )


def _parse_unused(text: str, root: str) -> float:
    """Return seconds, if it can be seen whether somebody has read a file for so long.

    :raises UsageError: it is no age, is less than what filesystems note, or this one notes nothing
    """
    seconds = parse_age(text, "--unused-for")
    if seconds < LEAST_UNUSED_SECONDS:
        refuse("--unused-for", text, "an age of at least 2d: when a file was read is noted once a day (relatime)")
    if os.path.isdir(root) and not native.notes_reading(root):
        raise UsageError(
            f"the filesystem of `{root}` does not note when files are read (noatime), so nobody knows what is unused",
            hint="see what there is, and remove all of it where nobody links to it: `envsync cache size`",
        )
    return seconds


def _remove(settings: Settings, root: str, choose: Callable[[], list[CacheItem]], *, unless_used: bool) -> int:
    """Remove things from the cache, and say what is gone."""
    timeout = request.settings_here(settings, os.environ).get("timeout")
    limit = timeout if isinstance(timeout, (int, float)) else None
    done = managing.remove(root, choose, unless_used=unless_used, timeout=limit, tell=narrator(settings))
    _tell(settings, root, "removed", done.items, done.trash)
    if done.stays and not settings.get("quiet"):
        where = ", ".join(f"`{root}/v1/{item.path}`" for item in done.stays[:NAMED])
        more = f" and {len(done.stays) - NAMED} more" if len(done.stays) > NAMED else ""
        say(f"some of that is still in {where}{more}: only its owner can remove it")
    if done.refused is not None:
        raise done.refused
    return 0


def _tell(
    settings: Settings, root: str, verb: str, items: list[CacheItem], trash: list[CacheItem] | None = None
) -> int:
    """Say what went or would go.

    :param trash: the same, measured when nobody could use it any more
    """
    sums = {**_sums(items if trash is None else trash), "wheels": _sums(items)["wheels"]}
    if settings.get("json"):
        show_json({"cache": root, "dry_run": bool(settings.get("dry_run")), **sums})
    elif not settings.get("quiet"):
        show(f"{verb} {_described(sums)} from `{root}`")
    return 0


def _sums(items: Iterable[CacheItem]) -> dict[str, int]:
    wheels = files = total = free = 0
    for item in items:
        wheels += item.kind == WHEELS
        files += item.files
        total += item.bytes
        free += item.free
    return {"wheels": wheels, "files": files, "bytes": total, "free": free}


def _described(sums: dict[str, int]) -> str:
    linked = f" ({human(sums['free'])} of it not linked from environments)" if sums["free"] != sums["bytes"] else ""
    return f"{sums['wheels']} wheels, {sums['files']} files, {human(sums['bytes'])}{linked}"


def narrator(settings: Settings) -> Callable[[str], None]:
    """Return what says who is waited for: at once, and then once a minute."""
    due = 0.0

    def tell(what: str) -> None:
        nonlocal due
        if time.monotonic() >= due and not settings.get("quiet"):
            due = time.monotonic() + SAY_AGAIN_SECONDS
            say(what)

    return tell
