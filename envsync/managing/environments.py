"""`envsync.list_environments` and `envsync.remove_environments`: those that a template names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from envsync.environments import forgetting, removal
from envsync.environments.known import Known, Surroundings, look
from envsync.environments.removal import Removal
from envsync.environments.size import measure
from envsync.environments.template import Template, of_path
from envsync.errors import FilesystemError
from envsync.system import paths


def list_environments(template: str | os.PathLike[str], *, sizes: bool = False) -> list[Known]:
    """Return what is known of all environments that a template names, as in `.venvs/{digest}`. Disturbs nobody.

    :param sizes: measure them, which looks at every file
    :raises UsageError: the template has no `{digest}`
    """
    known = named_by(Template(os.fsdecode(template)))
    return measured(known) if sizes else known


def remove_environments(environments: Iterable[Known], *, timeout: float = 0.0, dry_run: bool = False) -> list[Removal]:
    """Remove environments, as far as nobody syncs them or runs in them, and they are ours.

    One that was used, or made anew, since it was listed stays. Killed in the middle, what is left is not current, and
    goes with the next removal. Whoever launches in one that is being removed makes it anew.

    :param environments: of those that `list_environments` has found
    :param timeout: seconds to wait for those who sync one
    :param dry_run: remove nothing, and say what would be
    :returns: what became of each; `kept` says why one stays. Those that were gone before are left out
    :raises FilesystemError: some could not be removed, the first of which it names; the others are
    """
    wanted = list(environments)
    if dry_run:
        return [would(each) for each in wanted]
    emptied = remove(wanted, [of_path(each.path) for each in wanted], timeout)
    if emptied.refused:
        raise emptied.refused[0]
    return emptied.done


for _function in (list_environments, remove_environments):
    _function.__module__ = "envsync"


class Emptied(NamedTuple):
    """What became of environments that were to be removed, and why some could not be."""

    done: list[Removal]
    refused: list[FilesystemError]


def named_by(template: Template, path: str = "") -> list[Known]:
    """Look at all that a template names, or at the one of this path. What is gone is left out."""
    surroundings = Surroundings.here()
    found = [each for each in template.find() if not path or paths.abspath(each.path) == path]
    return [known for each in found if (known := look(each, surroundings)) is not None]


def measured(known: Iterable[Known]) -> list[Known]:
    """Say of each that is ours how much room it takes."""
    return [each if each.stranger else each._replace(size=measure(each.path)) for each in known]


def would(known: Known) -> Removal:
    """Say what would become of one."""
    kept = known.stranger or known.kept
    return (
        Removal(known.path, known.digest, kept) if kept else Removal(known.path, known.digest, size=measure(known.path))
    )


def remove(wanted: Iterable[Known], templates: Iterable[Template], timeout: float) -> Emptied:
    """Remove environments, and what is left over of others.

    :param templates: where leftovers may be
    """
    deadline = time.monotonic() + timeout
    surroundings = Surroundings.here()
    emptied = Emptied([], [])
    for each in wanted:
        try:
            removed = removal.remove(each, surroundings, deadline)
        except FilesystemError as error:
            emptied.refused.append(error)
            removed = Removal(each.path, each.digest, kept=error.message)
        emptied.done.extend([] if removed is None else [removed])
    gone = {each.digest for each in emptied.done if not each.kept} - {""}
    for template in {each.text: each for each in templates}.values():
        forgetting.forget(template.above, gone)
        removal.sweep(template)
    return emptied
