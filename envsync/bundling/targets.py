"""For which Pythons a bundle is: those of `--python`, each on every `--platform`; found here, or worked out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from envsync.errors import InterpreterError, UsageError
from envsync.launch.request import Request
from envsync.leading import goal
from envsync.python import elsewhere, interpreter, spelling
from envsync.python.elsewhere import Platform, Version
from envsync.python.facts import Interpreter
from envsync.system import core


class BundleTarget(NamedTuple):
    """A Python that a bundle is for."""

    title: str
    """What it is called in messages, as in `Python 3.12 on manylinux_2_28_x86_64`."""
    interpreter: Interpreter
    """Its markers and tags."""
    builder: Interpreter | None
    """The Python here that builds for it what has no wheel; None: there is none of that version."""
    is_here: bool
    """It is that Python itself, so that wheels may be for this very machine."""


def targets_of(request: Request, pythons: Sequence[str], platforms: Sequence[str], cache: str) -> list[BundleTarget]:
    """Find out for which Pythons a bundle is.

    :param request: says which Python is wanted, if `pythons` do not
    :param pythons: versions, paths or the like; none: the project's, or the one that runs envsync
    :param platforms: names of platforms; none: this host
    :raises InterpreterError: a Python is neither here nor named by its version
    :raises UsageError: there is no such platform
    """
    named = [elsewhere.platform_of(name) for name in platforms]
    found = []
    for spec in pythons or [goal.python_of(request) or ""]:
        here = _find(spec, cache)
        version = elsewhere.version_of(spec)
        if here is None and version is None:
            interpreter.find(spec)  # which says why not
        if named:
            found += [_at(platform, here, version) for platform in named]
        else:
            found.append(_here(here, version, cache))
    return list({(each.interpreter.fingerprint, each.title): each for each in found}.values())


def _find(spec: str, cache: str) -> Interpreter | None:
    """Return a Python that is here; None if there is none, but might be elsewhere."""
    try:
        asked = spelling.translate(spec) if spec else None
    except ValueError:
        asked = spec
    if asked is None:
        return interpreter.inspect(interpreter.own_base(), cache)
    try:
        return interpreter.inspect(interpreter.find(asked), cache)
    except InterpreterError:
        if core.has_directory(asked) or elsewhere.version_of(asked) is None:
            raise
        return None


def _here(here: Interpreter | None, version: Version | None, cache: str) -> BundleTarget:
    if here is not None:
        return BundleTarget(f"Python {here.release} here", here, here, is_here=True)
    assert version is not None
    own = interpreter.inspect(interpreter.own_base(), cache)
    return BundleTarget(f"Python {version.short}, which is not here", elsewhere.like(own, version), None, is_here=False)


def _at(platform: Platform, here: Interpreter | None, version: Version | None) -> BundleTarget:
    if version is None or (here is not None and version.full.endswith(".0")):
        assert here is not None
        if here.implementation != "cpython":
            hint = "leave the platform out, and bundle there; `envsync bundle --help` says what can be given"
            raise UsageError(f"what {here.implementation} takes on `{platform.name}` cannot be worked out", hint=hint)
        version = elsewhere.version_of(here.version.rstrip("+") + ("t" if "t" in here.release else "")) or version
    assert version is not None
    title = f"Python {version.short}{'t' if version.threaded else ''} on {platform.name}"
    return BundleTarget(title, elsewhere.at(platform, version), here, is_here=False)
