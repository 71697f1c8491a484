"""Find a file for each pin: in the store, then in find-links directories, then on pages and indexes.

The first that has a wheel that fits ends the search, so nothing is asked over the network that is at hand. Where only a
source distribution is at hand, there may be a wheel elsewhere, which goes before it, as with pip.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from packaging.version import Version

from envsync.errors import remedies
from envsync.lockfile.blockers import BlockedError, Blocker
from envsync.lockfile.places import Placed, search
from envsync.lockfile.project_names import is_project, no_project
from envsync.lockfile.reference import Reference
from envsync.lockfile.sources import (
    Sources,
    direct_url_of,
    direct_url_text,
    host_of,
    is_file_url,
    path_of_url,
    with_credentials,
    without_credentials,
)
from envsync.lockfile.target import DIRECTORY, Artifact, Source
from envsync.lockfile.wheelhouse import Wheelhouse, hashed
from envsync.lockfile.wheels import (
    Fit,
    Forms,
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
from envsync.system import paths

Known = Callable[[str], str | None]


def resolve(
    references: Sequence[Reference],
    fit: Fit,
    sources: Sources,
    known: Known,
    forms: Mapping[str, Forms] = MappingProxyType({}),
) -> tuple[list[Artifact], list[Blocker]]:
    """Find a file for each pinned reference.

    :param forms: by name, in which forms a package may be taken; default: in any
    :returns: the files; and why there is none for others, or none that fits
    :raises FetchError: an index does not answer
    :raises FilesystemError: a find-links directory cannot be read
    """
    wheelhouse = Wheelhouse(sources.directories)

    def chosen_of(each: Reference) -> Offer | Refusal:
        return choose(local[each.name], each.pin, fit, forms.get(each.name, Forms()))

    local = {
        each.name: _at_hand(each.pin, wheelhouse, known, fit, forms.get(each.name, Forms())) for each in references
    }
    chosen = {each.name: chosen_of(each) for each in references}
    doubts: list[str] = []
    wanting = [each for each in references if not _settles(chosen[each.name], forms.get(each.name, Forms()))]
    if wanting and sources.searchable:
        remote, doubts = _remote([each.name for each in wanting], sources)
        for each in wanting:
            local[each.name] += remote[each.name]
            chosen[each.name] = chosen_of(each)
    found = [
        _blocker(each, why, sources, doubts) for each in references if isinstance(why := chosen[each.name], Refusal)
    ]
    offers = ((offer, each.pin) for each in references if isinstance(offer := chosen[each.name], Offer))
    return [artifact_of(offer, pin) for offer, pin in offers], found


def _settles(chosen: Offer | Refusal, forms: Forms) -> bool:
    """Tell whether nothing better can be found elsewhere: it is a wheel, or no wheel may be taken."""
    return isinstance(chosen, Offer) and (chosen.is_wheel or bool(forms.no_wheel))


def _at_hand(pin: Pin, wheelhouse: Wheelhouse, known: Known, fit: Fit, forms: Forms) -> list[Offer]:
    """Give the files in the store, or else those in find-links directories."""
    stored = [
        offer_of(known(digest) or "", hashes={"sha256": digest})
        for algorithm, digest in pin.hashes
        if algorithm == "sha256"
    ]
    usable = [offer for offer in stored if offer is not None]
    if _settles(choose(usable, pin, fit, forms), forms):
        return usable
    offers = list(wheelhouse.offers(pin.name))
    fitting = {id(offer) for offer in fit.best_first(each for each in offers if each.is_wheel)}
    candidates = [each for each in offers if pin.accepts(each) and (not each.is_wheel or id(each) in fitting)]
    if pin.hashes and len(candidates) > 1:
        algorithms = {algorithm for algorithm, _ in pin.hashes}
        offers = [hashed(offer, algorithms) if offer in candidates else offer for offer in offers]
    return [*(each for each in usable if not each.is_wheel), *offers]


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
    """Find what is referred to by URL or path.

    :param given: the sources without those of the lock file: what has a hash is looked for there first
    :param lock: the lock file, for messages
    :returns: the artifacts; and why others do not fit, or are not there
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
        if not reference.hashes or not reference.is_file:
            settled.append(artifact)  # a file elsewhere may be another one
        elif (path := wheelhouse.path_of(artifact.filename)) is not None:
            settled.append(artifact._replace(path=path, url=None, missing=None))
        else:
            near = artifact.url is None or given.is_near(artifact.url)
            placed.append(Placed(artifact, sources, is_near=near))
    return [*settled, *(each.artifact for each in search(placed, known))], blockers


def _referred(reference: Reference, fit: Fit, sources: Sources, known: Known, lock: str) -> Artifact:
    """Make the artifact of a reference to a URL or path.

    :raises BlockedError: it is a wheel that does not fit, or a path that does not exist
    """
    source = reference.source
    if source is None:
        artifact = _wheel(reference, fit, known)
    elif reference.is_file:
        artifact = _archive(reference, known)
    else:
        _look_for_project(source, reference.where, lock)
        text = direct_url_of(source)
        return Artifact(reference.name, reference.pinned or "", "", direct_url=text, source=source)
    below = source.subdirectory if source is not None else ""
    text = direct_url_text(reference.path or reference.url or "", artifact.hashes, below)
    return _placed(artifact._replace(direct_url=text), reference, sources, lock)


def _look_for_project(source: Source, where: str, lock: str) -> None:
    """:raises BlockedError: there is no project in a directory"""
    if source.kind != DIRECTORY:
        return
    directory = paths.join(source.place, source.subdirectory).rstrip("/")
    if not os.path.isdir(directory):
        hint = f"correct the path; {remedies.show(where, lock)}"
        raise BlockedError(Blocker(f"{where}: there is no directory `{directory}`", hint))
    if not is_project(directory):
        problem, hint = no_project(directory)
        raise BlockedError(Blocker(f"{where}: {problem}", hint))


def _wheel(reference: Reference, fit: Fit, known: Known) -> Artifact:
    name = WheelName(reference.filename)
    if not fit.fits(name.tags):
        problem = f"{reference.where}: `{reference.name}`: {no_fit([name.filename], fit)}"
        raise BlockedError(Blocker(problem, *instead(name.name, name.version, [name.filename], fit)))
    stored = in_store(reference.pin, known)
    offer = Offer(name.name, name.version, name.filename, stored, path=reference.path, url=reference.url)
    return artifact_of(offer, reference.pin)


def _archive(reference: Reference, known: Known) -> Artifact:
    """Make the artifact of an archive, of which the version is known if something else pins it."""
    unknown = Version("0")
    stored = in_store(reference.pin, known)
    offer = Offer(reference.name, unknown, reference.filename, stored, path=reference.path, url=reference.url)
    return artifact_of(offer, reference.pin)._replace(version=reference.pinned or "", source=reference.source)


def _placed(artifact: Artifact, reference: Reference, sources: Sources, lock: str) -> Artifact:
    """Say where the file of a reference is taken from.

    :raises BlockedError: it is a path that does not exist
    """
    if reference.path is not None:
        if not artifact.hashes and not os.path.isfile(reference.path):
            problem = f"{reference.where}: there is no file `{reference.path}`"
            hint = f"put the wheel there, or correct the path; {remedies.show(reference.where, lock)}"
            raise BlockedError(Blocker(problem, hint))
        return artifact
    assert reference.url is not None
    if not reference.hashes and artifact.source is not None:
        artifact = artifact._replace(place=without_credentials(reference.url))
    url = sources.mirrored(reference.url)
    if is_file_url(url):
        return artifact._replace(url=None, path=path_of_url(url))
    if sources.offline:
        missing = (
            f"package `{artifact.name}`: `{artifact.filename}` is not in the cache, and --offline rules out "
            f"fetching it from `{host_of(reference.url)}`; run once without --offline"
        )
        return artifact._replace(url=None, missing=missing)
    return artifact._replace(url=with_credentials(url, sources.index_urls + sources.extra_index_urls))
