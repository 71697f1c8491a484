"""Make a bundle, or bring one up to date: everything that a lock file needs, verified, and then one rename.

Selected is what a sync would select by the same options, for each Python that the bundle is for, with no links to trees
(`--no-editable`): a bundle is used where those are not. What has no wheel is built, here; that goes into a bundle for
another platform only if it is for any platform. What the lock file has no hash for is unpacked into the cache as well,
which makes sure that its own RECORD vouches for all of it: from then on, the bundle does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from envsync.bundling import locking
from envsync.bundling.combining import Chosen, combined
from envsync.bundling.compiling import Compilation
from envsync.bundling.directory import Bundle
from envsync.bundling.keeping import Shelf, Wheel, total
from envsync.bundling.targets import BundleTarget, targets_of
from envsync.errors import BuildError, LockFileError
from envsync.launch import Environment
from envsync.launch.request import Request
from envsync.leading import sync_cache
from envsync.leading.goal import Python, Seeker
from envsync.lockfile.target import ARCHIVE
from envsync.locks import cache_lock
from envsync.store.store import Store
from envsync.waiting.shortening import human

if TYPE_CHECKING:
    from collections.abc import Mapping

    from envsync.launch.progress import Report
    from envsync.lockfile.target import Artifact, Target


REPORT_SECONDS = 0.1
"""Between two reports while a wheel is compared."""
_THERE = "make the bundle on such a host, without --platform"


class Made(NamedTuple):
    """What a bundle has now, or would have."""

    bundle: str
    targets: tuple[str, ...]
    """The Pythons that it is for."""
    wheels: tuple[str, ...]
    """Their places in it, sorted; of a preview, their file names, and the names of what would be built."""
    bytecode: tuple[str, ...]
    """The places of its bytecode, sorted; of a preview, as far as they are known."""
    bytes: int
    """Of all that; of a preview, of the wheels, as far as it is known."""
    added: tuple[str, ...]
    """Those of them that were not there."""
    changed: bool
    """The lock file in it is another one than before."""
    unverified: tuple[str, ...]
    """The names of packages for which the lock file has no hash."""
    notes: tuple[str, ...]
    """What else is worth knowing, a sentence each."""
    seconds: float


class Plan(NamedTuple):
    """What was selected for one Python."""

    target: BundleTarget
    selected: Target
    clauses: tuple[str, ...]


def make(
    request: Request,
    to: str,
    pythons: Sequence[str],
    platforms: Sequence[str],
    report: Report,
    *,
    dry_run: bool = False,
) -> Made:
    """Make a bundle. Blocks.

    :param to: its directory, which is made; what is in it of a bundle is used again
    :param pythons: as for `targets_of`, as `platforms`
    :param dry_run: only look what would be in it
    :raises EnvsyncError: as a sync; the bundle that was there is as it was, but for wheels that were added
    :raises UsageError: one lock file cannot tell the Pythons apart, or a newer envsync has made the bundle
    """
    began = time.monotonic()
    request = request.replaced(no_editable=True)
    with _cache(request, report) as store:
        seeker = Seeker(request, Environment(store.staging("none")), store, report)
        plans = [_plan(seeker, target) for target in targets_of(request, pythons, platforms, store.memory)]
        bundle = Bundle(to)
        bundle.present()
        if dry_run:
            return _preview(bundle, seeker, plans, began)
        bundle.prepare()
        with locking.adding(bundle, lambda what: report(what, 0, 0), timeout=request.timeout):
            return _fill(bundle, seeker, plans, began)


@contextmanager
def _cache(request: Request, report: Report) -> Iterator[Store]:
    """Share the cache, in which downloads are continued and builds are kept."""
    store = Store(sync_cache.cache_needed(request), durable=request.flag("durable"))
    store.prepare()
    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    lock = cache_lock.share(store.root, lambda what: report(what, 0, 0), deadline=deadline)
    try:
        yield store
    finally:
        if lock is not None:
            lock.release()


def _plan(seeker: Seeker, target: BundleTarget) -> Plan:
    from envsync.lockfile import conditions

    selected, left = seeker.select(target.interpreter)
    assert not left  # none is linked, as `--no-editable` has it
    lock = seeker.lock_file
    if not target.is_here and any(name in marker for marker in lock.markers for name in conditions.KERNEL):
        problem = f"it looks at the kernel of a host, of which nothing is known for {target.title}"
        raise LockFileError(lock.path, problem, hint=f"{_THERE}; `envsync bundle --help` says what can be given")
    plan = Plan(target, selected, tuple(conditions.clauses(lock.markers, target.interpreter.markers)))
    _check_buildable(plan)
    return plan


def _fill(bundle: Bundle, seeker: Seeker, plans: Sequence[Plan], began: float) -> Made:
    durable = seeker.request.flag("durable")
    shelf = Shelf(bundle, durable=durable)
    bytecode = Compilation(seeker, bundle, shelf, [plan.target for plan in plans])
    _announce(bundle, plans, bytecode, seeker.report)
    added: list[Wheel] = []
    found = [_wheels(seeker, plan, shelf, added) for plan in plans]
    for plan, wheels_of_it in zip(plans, found, strict=True):
        bytecode.add(plan.target, wheels_of_it)
    chosen = [
        Chosen(plan.target.title, plan.target.interpreter, wheels, plan.clauses)
        for plan, wheels in zip(plans, found, strict=True)
    ]
    import tomli_w

    text = tomli_w.dumps(combined(chosen, bytecode.files.values()).to_dict()).encode()
    changed = bundle.publish(text, durable=durable)
    wheels = {wheel.place: wheel for each in found for wheel in each}
    return Made(
        bundle.root,
        tuple(plan.target.title for plan in plans),
        tuple(sorted(wheels)),
        tuple(sorted(bytecode.files)),
        total(wheels.values()) + sum(file.size for file in bytecode.files.values()),
        tuple(sorted([*(wheel.place for wheel in added), *bytecode.added])),
        changed,
        _unverified(plans),
        tuple(bytecode.notes),
        round(time.monotonic() - began, 3),
    )


def _wheels(seeker: Seeker, plan: Plan, shelf: Shelf, added: list[Wheel]) -> tuple[Wheel, ...]:
    """Bring all wheels of one Python into the bundle: those of the lock file first, then what is built.

    :param added: is told which were not there
    """
    kept = _kept(seeker, _locked(plan), shelf)
    added += shelf.note(kept.values())
    _vouch(seeker.store, plan.selected, kept, shelf)
    if plan.selected.sources:
        kept |= _kept(seeker, _built(seeker, plan), shelf)
        added += shelf.note(kept.values())
    return tuple(kept.values())


def _kept(seeker: Seeker, wheels: Sequence[Artifact], shelf: Shelf) -> dict[str, Wheel]:
    """Have wheels kept in the bundle. Those in it are compared here: not in a child, so that a report may end it."""
    from envsync.fetching.crew import Keeper
    from envsync.fetching.fetch import every

    for done, artifact in enumerate(wheels):
        shelf.find(artifact, every(REPORT_SECONDS, partial(seeker.report, "comparing", done, len(wheels))))
    return seeker.fetch_into(
        wheels,
        Keeper[Wheel](lambda artifact, _: shelf.find(artifact), shelf.add, lambda wheel: wheel, lambda wheel: wheel),
    )


def _vouch(store: Store, target: Target, kept: Mapping[str, Wheel], shelf: Shelf) -> None:
    """Make sure that what no hash vouches for is vouched for by its RECORD, and remember which one came.

    :raises WheelError: it is not
    """
    from envsync.leading import kept_hashes

    unverified = set(target.unverified)
    for artifact in target.artifacts:
        if artifact.name in unverified:
            store.add(shelf.path(kept[artifact.name]), artifact)
            kept_hashes.keep_one(artifact, kept[artifact.name].sha256, store)


def _check_buildable(plan: Plan) -> None:
    """Refuse what is to be built for a Python that is not here, but for trees: they may give wheels for any platform.

    A source distribution is what is left if no wheel fits. To compile it here takes long, and is of no use there.

    :raises BuildError: it cannot be built here for that Python
    """
    foreign = [] if plan.target.is_here else [each for each in plan.selected.sources if _is_archive(each)]
    if plan.target.builder is None:
        foreign = list(plan.selected.sources)
    if foreign:
        names = ", ".join(artifact.label for artifact in foreign)
        raise BuildError(
            names, f"no wheel of it fits {plan.target.title}, and none can be built here", hint=_without(foreign[0])
        )


def _without(artifact: Artifact) -> str:
    return f"leave it out with `envsync bundle --no-install-package {artifact.name}`, or {_THERE}"


def _is_archive(artifact: Artifact) -> bool:
    return artifact.source is not None and artifact.source.kind == ARCHIVE


def _built(seeker: Seeker, plan: Plan) -> list[Artifact]:
    """Have built what has no wheel.

    :raises BuildError: it cannot be built here for that Python
    """
    from envsync.lockfile.wheels import WheelName

    assert plan.target.builder is not None
    wheels = seeker.wheels_of(plan.selected, Python(plan.target.builder, make=True, env=""))
    for wheel in wheels:
        if not plan.target.is_here and any(tag.platform != "any" for tag in WheelName(wheel.filename).tags):
            raise BuildError(
                wheel.label, f"its wheel is for this host, not for {plan.target.title}", hint=_without(wheel)
            )
    return wheels


def _announce(bundle: Bundle, plans: Sequence[Plan], bytecode: Compilation, report: Report) -> None:
    """Say how many wheels and bytes it will be, before anything is fetched."""
    say: Callable[[str], None] | None = getattr(report, "announce", None)
    if say is not None:
        files, size, unknown = _known(plans)
        least = "at least " if unknown else ""
        built = sorted({artifact.label for plan in plans for artifact in plan.selected.sources})
        more = f" and {len(built)} to build" if built else ""
        compiled = sum(bytecode.expected(plan.target, _locked(plan)) for plan in plans)
        with_it = f", and about {human(compiled)} of bytecode" if compiled else ""
        say(f"bundling {len(files)} wheels, {least}{human(size)}{more}{with_it}, into `{bundle.root}`")


def _known(plans: Sequence[Plan]) -> tuple[dict[str, Artifact], int, int]:
    """Return the wheels that are known before anything is built; their bytes, and of how many these are not known."""
    wheels = {f"{artifact.filename} {artifact.sha256}": artifact for plan in plans for artifact in _locked(plan)}
    sizes = list(map(_size, wheels.values()))
    return wheels, sum(size or 0 for size in sizes), sizes.count(None)


def _locked(plan: Plan) -> list[Artifact]:
    """Return what the lock file has as wheels."""
    return [artifact for artifact in plan.selected.artifacts if artifact.source is None]


def _size(artifact: Artifact) -> int | None:
    if artifact.size is None and artifact.path is not None:
        try:
            return os.stat(artifact.path).st_size
        except OSError:
            return None  # whoever opens it will say what is wrong
    return artifact.size


def _preview(bundle: Bundle, seeker: Seeker, plans: Sequence[Plan], began: float) -> Made:
    shelf = Shelf(bundle)
    compilation = Compilation(seeker, bundle, shelf, [plan.target for plan in plans])
    bytecode = {place for plan in plans for place in compilation.places(plan.target, _locked(plan))}
    wheels, size, _ = _known(plans)
    built = {f"{artifact.label} (to be built)" for plan in plans for artifact in plan.selected.sources}
    added = [artifact.filename for artifact in wheels.values() if shelf.find(artifact) is None]
    added += [place for place in bytecode if place not in compilation.known]
    return Made(
        bundle.root,
        tuple(plan.target.title for plan in plans),
        tuple(sorted([artifact.filename for artifact in wheels.values()] + [*built])),
        tuple(sorted(bytecode)),
        size,
        tuple(sorted([*added, *built])),
        bool(added or built),
        _unverified(plans),
        tuple(compilation.notes),
        round(time.monotonic() - began, 3),
    )


def _unverified(plans: Sequence[Plan]) -> tuple[str, ...]:
    return tuple(sorted({name for plan in plans for name in plan.selected.unverified}))
