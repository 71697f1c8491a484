"""What a target has that is no wheel: have it built, or find what was built before, and go on with the wheels.

Before the environment is looked at, as all that is fetched. Wheels come first, so that nothing is built for a lock file
of which something else cannot be had; then archives of sources; then what is built in environments of its own, and last
what is built with those wheels beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from envsync.building import build, built, keys
from envsync.building.build import Job, Order
from envsync.errors import BuildError, UsageError
from envsync.lockfile.target import ARCHIVE
from envsync.store import archives
from envsync.system import paths, processes

if TYPE_CHECKING:
    from envsync.building.built import Built
    from envsync.launch import Environment
    from envsync.launch.progress import Report
    from envsync.launch.request import Request
    from envsync.lockfile.sources import Sources
    from envsync.lockfile.target import Artifact, BuildRules, Target
    from envsync.python.facts import Interpreter
    from envsync.store.archives import Archive
    from envsync.store.store import Store
    from envsync.wheel.manifest import Manifest

MOST_NAMED = 10
STEPS = ("SLURM_STEP_ID", "PMIX_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PBS_JOBID", "LSB_JOBID")
"""Variables by which schedulers and launchers tell a job's processes."""


class Yard(NamedTuple):
    """What is needed to build for one target."""

    store: Store
    order: Order
    report: Report
    fetch: Callable[[Sequence[Artifact]], Mapping[str, Archive]]
    """Gets archives of sources."""
    unpack: Callable[[Sequence[Artifact]], Mapping[str, Manifest]]
    """Brings wheels into the store."""


def order_of(
    request: Request, environment: Environment, python: Interpreter, rules: BuildRules, sources: Sources
) -> Order:
    """Return how the sources of a request's target are to be built.

    :param rules: what the lock file's project says
    :raises UsageError: an option makes no sense
    """
    try:
        options = keys.rules_of(
            request.texts("config_setting"),
            request.texts("build_constraint"),
            request.texts("no_build_isolation_package"),
            isolated=not request.flag("no_build_isolation"),
        )
    except ValueError as error:
        hint = "each is a key, an equals sign and a value: `envsync sync --config-setting key=value`"
        raise UsageError(f"`{error}`, given to --config-setting, is no setting", hint=hint) from None
    _check_constraints(request.texts("build_constraint"))
    return Order(
        python,
        rules.together_with(options),
        sources,
        editables=paths.abspath(environment.editables),
        site=request.text("build_key") or "",
        installer=request.text("build_with") or "pip",
        offline=request.flag("offline"),
        trusted=built.users(request.texts("trusted_builder")),
    )


def _check_constraints(constraints: Sequence[str]) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    for text in constraints:
        try:
            Requirement(text)
        except InvalidRequirement:
            hint = "each is a name and its versions: `envsync sync --build-constraint 'setuptools<81'`"
            raise UsageError(f"`{text}`, given to --build-constraint, is no requirement", hint=hint) from None


def wheels_of(sources: Sequence[Artifact], yard: Yard, manifests: Mapping[str, Manifest]) -> list[Artifact]:
    """Have all sources built, and return the wheels, in the same order.

    :param manifests: of the wheels that are installed with them
    :raises EnvsyncError: one cannot be had or built
    """
    order = yard.order
    alone = [artifact for artifact in sources if not keys.is_unisolated(artifact.name, order.rules)]
    found = _wheels_of(alone, yard, ())
    last = [artifact for artifact in sources if artifact.name not in found]
    # What is linked to a tree is not seen by its wheel, whose hash changes with each environment.
    seen = [artifact for artifact in alone if artifact.source is not None and not artifact.source.editable]
    if last and seen:
        yard.unpack([build.as_wheel(artifact, found[artifact.name]) for artifact in seen])
    hashes = [found[artifact.name].sha256 for artifact in seen]
    beside = [*(manifest.sha256 for manifest in manifests.values()), *hashes]
    found |= _wheels_of(last, yard, beside)
    return [build.as_wheel(artifact, found[artifact.name]) for artifact in sources]


def sweep(editables: str, wheels: Sequence[Artifact]) -> None:
    """Remove the editable wheels of an environment that are not among those that a whole lock file asks for.

    :param editables: where they are kept
    """
    build.sweep(editables, {os.path.basename(os.path.dirname(wheel.path or "")) for wheel in wheels})


def only(target: Target, names: Collection[str]) -> Target:
    """Leave of a target what has these names; all of it if one of them is built with what is installed beside it."""
    if any(keys.is_unisolated(name, target.rules) for name in names):
        return target
    return target._replace(artifacts=tuple(artifact for artifact in target.artifacts if artifact.name in names))


def has_unisolated(target: Target) -> bool:
    """Tell whether a target has what is built with what is installed beside it."""
    return any(keys.is_unisolated(artifact.name, target.rules) for artifact in target.sources)


def shareable(target: Target) -> tuple[Target, tuple[str, ...]]:
    """Leave of a target what does not belong to one environment; and name what does: what is linked to its tree."""
    linked = [each for each in target.artifacts if each.source is not None and each.source.editable]
    rest = tuple(each for each in target.artifacts if each not in linked)
    return target._replace(artifacts=rest), tuple(each.name for each in linked)


def _wheels_of(sources: Sequence[Artifact], yard: Yard, beside: Sequence[str]) -> dict[str, Built]:
    found: dict[str, Built] = {}
    jobs = {job.artifact.name: job for job in _known(sources, yard, beside)}
    for name, job in jobs.items():
        if (before := build.find(job, yard.store, yard.order)) is not None:
            found[name] = before
    missing = [artifact for artifact in sources if artifact.name not in found]
    if not missing:
        return found
    _announce(missing, yard.report)
    of_archives = [artifact for artifact in missing if artifact.source is not None and artifact.source.kind == ARCHIVE]
    at_hand = yard.fetch(of_archives) if of_archives else {}
    wanted = [
        build.job_of(artifact, yard.order, at_hand[artifact.name], beside=beside)
        if artifact.name in at_hand
        else jobs[artifact.name]
        for artifact in missing
    ]
    return found | build.build(wanted, yard.store, yard.order, yard.report)


def _known(sources: Sequence[Artifact], yard: Yard, beside: Sequence[str]) -> list[Job]:
    """Return the jobs of which the key is known before anything is fetched."""
    jobs = []
    for artifact in sources:
        archive = _archive(artifact, yard.store)
        if artifact.source is not None and (artifact.source.kind != ARCHIVE or archive is not None):
            jobs.append(build.job_of(artifact, yard.order, archive, beside=beside, checkpoint=_alive(yard.report)))
    return jobs


def _archive(artifact: Artifact, store: Store) -> Archive | None:
    """Return an archive, or what is known of it: the hash is enough to find what was built of it."""
    if artifact.source is None or artifact.source.kind != ARCHIVE:
        return None
    if artifact.sha256 is not None:
        return archives.Archive("", artifact.sha256.lower())
    return archives.find(store, artifact)


def _alive(report: Report) -> Callable[[], None]:
    return lambda: report("looking at the sources", 0, 0)


def _announce(missing: Sequence[Artifact], report: Report) -> None:
    """Say what is going to be built, before it is: that runs code of its authors."""
    say = getattr(report, "announce", None)
    if say is None:
        return
    names = ", ".join(artifact.label for artifact in missing[:MOST_NAMED])
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    say(f"building from source, which runs code of its authors: {names}{more}")
    if any(name in os.environ for name in STEPS):
        say(f"this is done on {processes.host()}, within a job; `envsync sync` before the job starts builds beforehand")


def preview(sources: Sequence[Artifact], store: Store, order: Order) -> list[Artifact]:
    """Return the wheels of what was built before; of the rest, what is known of it without building anything."""
    wheels = []
    for artifact in sources:
        archive = _archive(artifact, store)
        try:
            job = build.job_of(artifact, order, archive)
        except BuildError:
            job = None
        unknown = job is None or (job.source.kind == ARCHIVE and archive is None)
        found = None if job is None or unknown else build.find(job, store, order)
        nothing_yet = artifact._replace(hashes={}, source=None)
        wheels.append(build.as_wheel(artifact, found) if found is not None else nothing_yet)
    return wheels
