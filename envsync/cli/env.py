"""What `env list`, `show`, `prune` and `remove` do and print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import TYPE_CHECKING

from envsync.cli.amounts import parse_age, since
from envsync.cli.status import running
from envsync.environments.choice import Rules, chosen
from envsync.environments.known import Known, age
from envsync.environments.removal import Removal
from envsync.environments.size import Size
from envsync.environments.template import DIGEST, Template, of_path
from envsync.errors import NoEnvironmentError, UsageError
from envsync.launch import finding, request
from envsync.launch.messages import say, show, show_json
from envsync.managing import environments
from envsync.system import paths
from envsync.waiting.shortening import human

if TYPE_CHECKING:
    from envsync.launch.options import Settings

EXIT_KEPT = 1


def listed(settings: Settings, template: str) -> int:
    """List the environments that a template names, what was used least lately first.

    TEMPLATE is what --env takes, as in `.venvs/{digest}`. Default: what it is here, by variables and files. Disturbs
    nobody.
    """
    finding.go_to(settings, os.environ)
    meant = _template(settings, template)
    found = sorted(_measured(environments.named_by(meant), settings), key=lambda each: each.used)
    if settings.get("json"):
        trash = [paths.abspath(each.path) for each in meant.trash()]
        show_json({"template": meant.text, "environments": [each.as_json() for each in found], "trash": trash})
        return 0
    for line in _table([each for each in found if not each.stranger], verbose=bool(settings.get("verbose"))):
        show(line)
    for each in found:
        if each.stranger:
            show(f"`{each.path}` is none of ours: {each.stranger}")
    for left in meant.trash():
        show(f"`{paths.abspath(left.path)}` is being removed, or was left over: the next prune removes it")
    if not found:
        show(f"there are no environments `{meant.text}`")
    return 0


def shown(settings: Settings, paths: Sequence[str]) -> int:
    """Say all that is known of environments, by their paths."""
    finding.go_to(settings, os.environ)
    found = _measured([each for path in paths for each in _named(settings, path)], settings)
    if settings.get("json"):
        show_json({"environments": [each.as_json() for each in found]})
        return 0
    for each in found:
        for line in _described(each):
            show(line)
    return 0


def prune(settings: Settings, template: str) -> int:
    """Remove environments that nobody runs in, of those that a template names.

    TEMPLATE is what --env takes, as in `.venvs/{digest}`. Default: what it is here, by variables and files. Without
    --older-than or --keep all of them are meant, and it asks.
    """
    finding.go_to(settings, os.environ)
    rules = _rules(settings)
    meant = _template(settings, template)
    wanted = chosen(environments.named_by(meant), rules)
    if wanted and rules.is_everything and not _may_go(settings, wanted, meant):
        return EXIT_KEPT
    done = _remove(settings, [meant], wanted)
    if not settings.get("json"):
        _tell(settings, done, meant.text)
    return 0


def remove(settings: Settings, paths: Sequence[str]) -> int:
    """Remove environments that nobody runs in, by their paths.

    Exits with 1 if one of them stays. A path may be a template, as in `.venvs/{digest}`: then all that it names are
    meant, and it asks.
    """
    finding.go_to(settings, os.environ)
    templates = [_template(settings, path) if request.is_named_later(path) else of_path(path) for path in paths]
    wanted = [each for path in paths for each in _named(settings, path)]
    if wanted and any(map(request.is_named_later, paths)) and not _may_go(settings, wanted, templates[0]):
        return EXIT_KEPT
    done = _remove(settings, templates, wanted)
    if not settings.get("json"):
        _tell(settings, done, ", ".join(paths), all_reasons=True)
    return EXIT_KEPT if any(each.kept for each in done) else 0


def _template(settings: Settings, template: str) -> Template:
    """Return the template that is meant: the one that was named, or what `--env` is here."""
    given = {**settings, "env": template} if template else settings
    env = request.settings_here(given, os.environ).get("env")
    if not isinstance(env, str):
        raise UsageError(
            f"nothing says which environments are meant: here it is `.venv`, which is not named by `{DIGEST}`",
            hint="name them: `envsync env list '.venvs/{digest}'`; `envsync status` says how it is with `.venv`",
        )
    return Template(env)


def _named(settings: Settings, path: str) -> list[Known]:
    """Return what is known of those that a path or a template names.

    :raises NoEnvironmentError: a path names nothing
    """
    if request.is_named_later(path):
        return environments.named_by(_template(settings, path))
    found = environments.named_by(of_path(path), paths.abspath(path))
    if not found:
        raise NoEnvironmentError(
            path, hint=f"`envsync env list {quote(of_path(path).text)}` names those that there are"
        )
    return found


def _measured(found: list[Known], settings: Settings) -> list[Known]:
    return found if settings.get("no_size") else environments.measured(found)


def _rules(settings: Settings) -> Rules:
    """Return what the command line says, and nothing else: elsewhere, an age is that of the cache."""
    limit, keep = settings.get("older_than"), settings.get("keep", "0")
    if not str(keep).isascii() or not str(keep).isdigit():
        raise UsageError(f"option `--keep`: `{keep}` is not a number of environments")
    return Rules(None if limit is None else parse_age(str(limit)), int(str(keep)))


def _remove(settings: Settings, templates: list[Template], wanted: list[Known]) -> list[Removal]:
    """Remove environments, and what is left over of others.

    :param templates: where leftovers may be
    """
    if settings.get("dry_run"):
        return _answer(settings, [environments.would(each) for each in wanted], templates)
    timeout = settings.get("timeout")
    emptied = environments.remove(wanted, templates, timeout if isinstance(timeout, (int, float)) else 0.0)
    _answer(settings, emptied.done, templates)
    if emptied.refused:
        raise emptied.refused[0]
    return emptied.done


def _answer(settings: Settings, done: list[Removal], templates: list[Template]) -> list[Removal]:
    if settings.get("json"):
        removed = [{"path": each.path, "digest": each.digest, **each.size._asdict()} for each in done if not each.kept]
        kept = [{"path": each.path, "digest": each.digest, "reason": each.kept} for each in done if each.kept]
        said = {"template": templates[0].text if len(templates) == 1 else None, "removed": removed, "kept": kept}
        show_json({**said, "dry_run": bool(settings.get("dry_run"))})
    return done


def _may_go(settings: Settings, wanted: list[Known], template: Template) -> bool:
    """Ask whether all of them may go, unless that was said, or none goes.

    :raises UsageError: there is nobody to ask
    """
    import click

    if settings.get("yes") or settings.get("dry_run"):
        return True
    which = quote(template.text)
    all_of_them = f"all {len(wanted)} environments" if len(wanted) > 1 else f"`{wanted[0].path}`"
    if not sys.stdin.isatty():
        raise UsageError(
            f"nothing says which of {len(wanted)} environments are to go, and there is no terminal to ask",
            hint=f"`envsync env prune {which} --older-than 30d` removes what was not used for so long, and "
            f"`envsync env prune {which} --yes` all that nobody runs in; `--dry-run` shows which",
        )
    return click.confirm(f"envsync: remove {all_of_them}?", err=True)


def _tell(settings: Settings, done: list[Removal], named: str, *, all_reasons: bool = False) -> None:
    gone, stay = [each for each in done if not each.kept], [each for each in done if each.kept]
    if not settings.get("quiet"):
        verb = "would remove" if settings.get("dry_run") else "removed"
        if settings.get("verbose") or settings.get("dry_run"):
            for each in gone:
                show(f"{verb} `{each.path}`: {_room(each.size)}")
        sizes = Size(*(sum(column) for column in zip(*(each.size for each in gone), strict=True))) if gone else Size()
        show(f"{verb} {len(gone)} environment{'' if len(gone) == 1 else 's'}, {_room(sizes)} (`{named}`)")
        for each in gone:
            if each.left:
                say(f"some of it is still in `{each.left}`: somebody has it open, or only its owner can remove it")
    if all_reasons or settings.get("verbose") or settings.get("dry_run"):
        for each in stay:
            say(f"kept `{each.path}`: {each.kept}")
    elif stay and not settings.get("quiet"):
        say(f"kept {len(stay)}, as that of `{stay[0].path}`: {stay[0].kept}; `--verbose` says why of each")


def _room(size: Size) -> str:
    shared = f" ({human(size.free)} of it shared with nothing else)" if size.free != size.bytes else ""
    return f"{size.files} files, {human(size.bytes)}{shared}"


def _table(found: list[Known], *, verbose: bool) -> Iterator[str]:
    """Say in lines what there is."""
    if not found:
        return
    yield f"{'used':>6} {'made':>6} {'frees':>9} {'all':>9}  {'state':<11} {'lock file':<16} environment"
    for each in found:
        free, total = (human(each.size.free), human(each.size.bytes)) if each.size else ("-", "-")
        times = f"{since(age(each.used), days=True):>6} {since(age(each.made)):>6}"
        yield f"{times} {free:>9} {total:>9}  {_state(each):<11} {each.lock or '-':<16} {each.path}"
        if verbose:
            yield from (f"       {line}" for line in _reasons(each))


def _state(known: Known) -> str:
    if known.leader is not None:
        return "syncing"
    if known.commands:
        return "in use"
    if known.jobs:
        return "in use?"
    return "current" if known.current else "not current"


def _described(known: Known) -> Iterator[str]:
    """Say in lines all that is known of an environment."""
    if known.stranger:
        yield f"`{known.path}` is none of ours: {known.stranger}"
        return
    yield f"`{known.path}` is {'current' if known.current else f'not current: {known.reason}'}"
    yield f"    digest {known.digest or '-'}, lock file {known.lock or '-'}, Python {known.python or '-'}"
    used = since(age(known.used), days=True)
    yield f"    made {since(age(known.made))} ago, used {used} ago"
    if known.size is not None:
        yield f"    {_room(known.size)}"
    for line in running(known.commands, known.jobs, time.time()):
        yield f"    {line}"
    if known.waiters:
        yield f"    {known.waiters} wait for it"
    yield f"    would be kept now: {known.kept}" if known.kept else "    could be removed now"


def _reasons(known: Known) -> Iterator[str]:
    if known.reason:
        yield f"not current: {known.reason}"
    if known.kept:
        yield f"would be kept: {known.kept}"
    yield from running((), known.jobs, time.time())
