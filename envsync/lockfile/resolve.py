"""Find a wheel for each pin: in the store, then in find-links directories, then on pages and indexes.

The first that has a wheel that fits ends the search, so nothing is asked over the network that is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from envsync.lockfile.blockers import Blocker, refusal
from envsync.lockfile.reference import Reference
from envsync.lockfile.sources import Sources
from envsync.lockfile.target import Artifact
from envsync.lockfile.wheelhouse import Wheelhouse, hashed
from envsync.lockfile.wheels import Fit, Offer, Pin, Refusal, artifact_of, choose, offer_of

Known = Callable[[str], str | None]


def resolve(
    path: str,
    references: Sequence[Reference],
    fit: Fit,
    sources: Sources,
    known: Known,
    *,
    blockers: Sequence[Blocker] = (),
) -> list[Artifact]:
    """Find a wheel for each pinned reference.

    :param path: the lock file, for messages
    :param blockers: what is known to be wrong with others of the lock file
    :raises NoWheelError: there is none that fits; all that lack one are named
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
    if blockers or found:
        raise refusal(path, [*blockers, *found])
    return [artifact_of(offer, each.pin) for each in references if isinstance(offer := chosen[each.name], Offer)]


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
