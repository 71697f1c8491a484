"""Find a wheel for each pin: in the store, then in find-links directories, then on pages and indexes.

The first that has a wheel that fits ends the search, so nothing is asked over the network that is at hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from envsync.errors import remedies
from envsync.lockfile.blockers import BlockedError, Blocker
from envsync.lockfile.places import Placed, search
from envsync.lockfile.reference import Reference
from envsync.lockfile.sources import Sources, direct_url_text, host_of, is_file_url, path_of_url, with_credentials
from envsync.lockfile.target import Artifact
from envsync.lockfile.wheelhouse import Wheelhouse, hashed
from envsync.lockfile.wheels import (
    Fit,
    Offer,
    Pin,
    Refusal,
    WheelName,
    artifact_of,
    choose,
    instead,
    no_fit,
    offer_of,
)

Known = Callable[[str], str | None]


def resolve(
    references: Sequence[Reference], fit: Fit, sources: Sources, known: Known
) -> tuple[list[Artifact], list[Blocker]]:
    """Find a wheel for each pinned reference.

    :returns: the wheels; and why there is none for others, or none that fits
    :raises FetchError: an index does not answer
    :raises FilesystemError: a find-links directory cannot be read
    """
    wheelhouse = Wheelhouse(sources.directories)
    local = {each.name: _at_hand(each.pin, wheelhouse, known, fit) for each in references}
    chosen = {each.name: choose(local[each.name], each.pin, fit) for each in references}
    doubts: list[str] = []
    absent = [each for each in references if isinstance(chosen[each.name], Refusal)]
    if absent and sources.searchable:
        remote, doubts = _remote([each.name for each in absent], sources)
        for each in absent:
            local[each.name] += remote[each.name]
            chosen[each.name] = choose(local[each.name], each.pin, fit)
    found = [
        _blocker(each, why, sources, doubts) for each in references if isinstance(why := chosen[each.name], Refusal)
    ]
    offers = ((offer, each.pin) for each in references if isinstance(offer := chosen[each.name], Offer))
    return [artifact_of(offer, pin) for offer, pin in offers], found


def _at_hand(pin: Pin, wheelhouse: Wheelhouse, known: Known, fit: Fit) -> list[Offer]:
    """Give the wheels in the store, or else the files in find-links directories."""
    stored = [
        offer_of(known(digest) or "", hashes={"sha256": digest})
        for algorithm, digest in pin.hashes
        if algorithm == "sha256"
    ]
    usable = [offer for offer in stored if offer is not None]
    if isinstance(choose(usable, pin, fit), Offer):
        return usable
    offers = list(wheelhouse.offers(pin.name))
    candidates = fit.best_first(offer for offer in offers if offer.is_wheel and pin.accepts(offer))
    if pin.hashes and len(candidates) > 1:
        algorithms = {algorithm for algorithm, _ in pin.hashes}
        return [hashed(offer, algorithms) if offer in candidates else offer for offer in offers]
    return offers


def _remote(names: Sequence[str], sources: Sources) -> tuple[Mapping[str, list[Offer]], list[str]]:
    """Ask pages and indexes.

    :returns: what they have, and what seems to be wrong with their addresses
    """
    from envsync.lockfile.index import Index

    with Index(sources) as index:
        return index.offers(names), index.doubts


def _blocker(reference: Reference, why: Refusal, sources: Sources, doubts: Sequence[str]) -> Blocker:
    problem = f"{reference.where}: `{reference.name}{reference.specifier}`: {why.problem}"
    if sources.prohibition:
        problem += f" (with {sources.prohibition} no index was asked)"
    return Blocker(problem, "; ".join([why.hint, *doubts]), why.build)


def in_store(pin: Pin, known: Known) -> dict[str, str]:
    """Give the hash of the wheel in the store, if a pin allows one that is there."""
    return next(
        ({algorithm: digest} for algorithm, digest in pin.hashes if algorithm == "sha256" and known(digest)),
        {},
    )


def direct(
    references: Sequence[Reference], fit: Fit, sources: Sources, known: Known, *, given: Sources, lock: str
) -> tuple[list[Artifact], list[Blocker]]:
    """Find the wheels that are referred to by URL or path.

    :param given: the sources without those of the lock file: what has a hash is looked for there first
    :param lock: the lock file, for messages
    :returns: the wheels; and why others do not fit, or are not there
    :raises FetchError: an index does not answer
    :raises FilesystemError: a find-links directory cannot be read
    """
    wheelhouse = Wheelhouse(given.directories)
    settled: list[Artifact] = []
    placed: list[Placed] = []
    blockers: list[Blocker] = []
    for reference in references:
        try:
            artifact = _referred(reference, fit, sources, known, lock)
        except BlockedError as error:
            blockers.append(error.blocker)
            continue
        if not reference.hashes:
            settled.append(artifact)  # a file elsewhere may be another one
        elif (path := wheelhouse.path_of(artifact.filename)) is not None:
            settled.append(artifact._replace(path=path, url=None, missing=None))
        else:
            near = artifact.url is None or given.is_near(artifact.url)
            placed.append(Placed(artifact, sources, is_near=near))
    return [*settled, *(each.artifact for each in search(placed, known))], blockers


def _referred(reference: Reference, fit: Fit, sources: Sources, known: Known, lock: str) -> Artifact:
    """Make the artifact of a reference to a wheel at a URL or path.

    :raises BlockedError: the wheel does not fit, or is a path that does not exist
    """
    name = WheelName(reference.filename)
    if not fit.fits(name.tags):
        problem = f"{reference.where}: `{reference.name}`: {no_fit([name.filename], fit)}"
        raise BlockedError(Blocker(problem, *instead(name.name, name.version, [name.filename], fit)))
    offer = Offer(
        name.name,
        name.version,
        name.filename,
        in_store(reference.pin, known),
        path=reference.path,
        url=reference.url,
    )
    artifact = artifact_of(offer, reference.pin)
    artifact = artifact._replace(direct_url=direct_url_text(reference.path or reference.url or "", artifact.hashes))
    if reference.path is not None:
        if not artifact.hashes and not os.path.isfile(reference.path):
            problem = f"{reference.where}: there is no file `{reference.path}`"
            hint = f"put the wheel there, or correct the path; {remedies.show(reference.where, lock)}"
            raise BlockedError(Blocker(problem, hint))
        return artifact
    assert reference.url is not None
    url = sources.mirrored(reference.url)
    if is_file_url(url):
        return artifact._replace(url=None, path=path_of_url(url))
    if sources.offline:
        missing = (
            f"package `{name.name}`: `{name.filename}` is not in the cache, and --offline rules out "
            f"fetching it from `{host_of(reference.url)}`; run once without --offline"
        )
        return artifact._replace(url=None, missing=missing)
    return artifact._replace(url=with_credentials(url, sources.index_urls + sources.extra_index_urls))
