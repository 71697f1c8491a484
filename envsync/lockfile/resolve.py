"""Find a wheel for each pin: in the store, then in find-links directories, then on pages and indexes.

The first that has a wheel that fits ends the search, so nothing is asked over the network that is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from envsync.errors import NoWheelError
from envsync.lockfile.reference import Reference
from envsync.lockfile.sources import Sources
from envsync.lockfile.wheelhouse import Wheelhouse, hashed
from envsync.lockfile.wheels import Fit, Offer, Pin, Refusal, artifact_of, choose, offer_of
from envsync.target import Artifact

Known = Callable[[str], str | None]


def resolve(path: str, references: Sequence[Reference], fit: Fit, sources: Sources, known: Known) -> list[Artifact]:
    """Find a wheel for each pinned reference.

    :param path: the lock file, for messages
    :raises NoWheelError: there is none that fits
    :raises FetchError: an index does not answer
    :raises FilesystemError: a find-links directory cannot be read
    """
    wheelhouse = Wheelhouse(sources.directories)
    local = {each.name: _at_hand(each.pin, wheelhouse, known, fit) for each in references}
    chosen = {each.name: choose(local[each.name], each.pin, fit) for each in references}
    absent = [each for each in references if isinstance(chosen[each.name], Refusal)]
    if absent and sources.searchable:
        remote = _remote([each.name for each in absent], sources)
        for each in absent:
            local[each.name] += remote[each.name]
            chosen[each.name] = choose(local[each.name], each.pin, fit)
    return [_artifact(path, each, chosen[each.name], sources) for each in references]


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


def _remote(names: Sequence[str], sources: Sources) -> Mapping[str, list[Offer]]:
    from envsync.lockfile.index import Index

    with Index(sources) as index:
        return index.offers(names)


def _artifact(path: str, reference: Reference, chosen: Offer | Refusal, sources: Sources) -> Artifact:
    if isinstance(chosen, Refusal):
        problem = f"{reference.where}: `{reference.name}{reference.specifier}`: {chosen.problem}"
        if sources.prohibition:
            problem += f" (with {sources.prohibition} no index was asked)"
        raise NoWheelError(path, problem, hint=chosen.hint)
    return artifact_of(chosen, reference.pin)


def in_store(pin: Pin, known: Known) -> dict[str, str]:
    """Give the hash of the wheel in the store, if a pin allows one that is there."""
    return next(
        ({algorithm: digest} for algorithm, digest in pin.hashes if algorithm == "sha256" and known(digest)),
        {},
    )
