"""What `bundle`, `bundle verify` and `bundle prune` do and print."""

from __future__ import annotations

import os
from shlex import quote
from typing import TYPE_CHECKING

from envsync.bundling import locking, making
from envsync.bundling.directory import KEPT_SECONDS, existing
from envsync.bundling.making import Made
from envsync.bundling.pruning import prune as prune_bundle
from envsync.bundling.verifying import verified
from envsync.cli import bundle_options
from envsync.cli.amounts import parse_age
from envsync.cli.cache import narrator
from envsync.cli.display import Display
from envsync.cli.tell import completed_by
from envsync.errors import UsageError
from envsync.launch import finding, request
from envsync.launch.messages import say, show, show_json
from envsync.waiting.shortening import human

if TYPE_CHECKING:
    from envsync.launch.options import Settings

EXIT_DAMAGED = 1
NAMED = 20
"""So many things that are damaged are named."""


def make(settings: Settings) -> int:
    """Make a bundle, or bring one up to date."""
    finding.go_to(settings, os.environ)
    to = settings.get("to")
    if not isinstance(to, str) or not to.strip("/"):
        raise UsageError("it is not said where the bundle is to be", hint="name it: `envsync bundle --to bundle`")
    pythons = settings.get("python", [])
    given = {key: value for key, value in settings.items() if key not in ("to", "python", "platform")}
    asked = request.resolve(given, os.environ, placed=False)
    assert isinstance(pythons, list)
    platforms = settings.get("platform", [])
    assert isinstance(platforms, list)
    dry_run = bool(settings.get("dry_run"))
    with Display(asked) as display:
        made = making.make(asked, to, pythons, platforms, display, dry_run=dry_run)
    if asked.flag("json"):
        show_json({**made._asdict(), "lock": asked.lock, "dry_run": dry_run})
    elif not asked.flag("quiet"):
        _tell(made, settings, dry_run=dry_run)
    return 0


def _tell(made: Made, settings: Settings, *, dry_run: bool) -> None:
    if made.unverified:
        say(f"note: without a hash in the lock file, taken as they came: {', '.join(made.unverified)}")
    for note in made.notes:
        say(f"note: {completed_by(note, settings, bundle_options.MAKE)}")
    would, are = ("would have", "would be") if dry_run else ("has", "are")
    if dry_run:
        for place in made.added:
            show(f"would add {place}")
    new = f"{len(made.added)} of them {are} new" if made.added else "none of them new"
    counted = f"{len(made.wheels)} wheels{_and_bytecode(len(made.bytecode))}"
    what = f"{counted}, {human(made.bytes)}, {new}, for {', '.join(made.targets)}"
    show(f"`{made.bundle}` {would} {what}")
    if made.bytecode and not dry_run:
        show("nodes that sync with --compile-bytecode take the bytecode, and compile nothing")


def _and_bytecode(count: int) -> str:
    return f" and {count} files of bytecode" if count else ""


def verify(directory: str, settings: Settings) -> int:
    """Compare all that a bundle has with its hashes. Returns 1 if anything is damaged."""
    found_bundle, text = existing(directory)
    with Display(request.Request(settings, "", "", ".venv")) as display:
        found = verified(found_bundle, text, display)
    if settings.get("json"):
        damage = [item._asdict() for item in found.damage]
        counted = {"wheels": found.wheels, "bytecode": found.bytecode, "bytes": found.bytes}
        show_json({"bundle": found_bundle.root, **counted, "damaged": damage})
        return EXIT_DAMAGED if found.damage else 0
    for item in found.damage[:NAMED]:
        show(f"damaged: `{item.path}`: {item.problem}")
    if len(found.damage) > NAMED:
        show(f"and {len(found.damage) - NAMED} more")
    what = f"{found.wheels} wheels{_and_bytecode(found.bytecode)}"
    if found.damage:
        again = (
            f"`envsync bundle --to {quote(found_bundle.root)}`, with the options of then, gets again what is damaged"
        )
        show(f"`{found_bundle.root}`: {len(found.damage)} of {what} or versions are damaged; {again}")
    elif not settings.get("quiet"):
        show(f"`{found_bundle.root}`: {what}, {human(found.bytes)}, all as they ought to be")
    return EXIT_DAMAGED if found.damage else 0


def prune(directory: str, settings: Settings) -> int:
    """Remove from a bundle the wheels that no version of the last seven days names."""
    age = settings.get("older_than")
    seconds = KEPT_SECONDS if age is None else parse_age(str(age))
    timeout = settings.get("timeout")
    limit = timeout if isinstance(timeout, (int, float)) else None
    dry_run = bool(settings.get("dry_run"))
    found_bundle, _ = existing(directory)
    with locking.removing(found_bundle, narrator(settings), timeout=limit):
        found_bundle, text = existing(directory)
        pruned = prune_bundle(found_bundle, text, age=seconds, dry_run=dry_run)
    if settings.get("json"):
        show_json({"bundle": found_bundle.root, "dry_run": dry_run, **pruned._asdict()})
    elif not settings.get("quiet"):
        verb = "would remove" if dry_run else "removed"
        counted = f"{len(pruned.wheels)} wheels{_and_bytecode(len(pruned.bytecode))}"
        what = f"{counted}, {human(pruned.bytes)}, and {pruned.versions} versions"
        show(f"{verb} {what} from `{found_bundle.root}`")
    return 0
