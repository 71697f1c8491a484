"""Notes: what happened is said each time, what lasts is said once for an environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from envsync.launch import Environment
from envsync.leading import notes

COPIED = (
    "files were copied, since they could not be linked from the cache: Invalid cross-device link (`/cache/v1/a.py`)"
)
CACHE = "the cache `/cache` cannot be written to: what it lacked went to `/fallback`"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / ".envsync").mkdir()
    return Environment(str(tmp_path))


def say(environment: Environment, *lasting: str, saying: bool = True) -> tuple[str, ...]:
    return notes.said_before(environment, lasting, saying=saying)


def test_once(environment: Environment) -> None:
    """The first time it is new, then it is not; another example, or some files instead of all, is nothing new."""
    assert say(environment, COPIED) == ()
    assert say(environment, COPIED, CACHE) == (COPIED,)
    other = "some " + COPIED.replace("a.py", "b.py")
    assert say(environment, other, CACHE) == (other, CACHE)


def test_what_is_new(environment: Environment) -> None:
    """Another reason, and another cache."""
    say(environment, COPIED, CACHE)
    assert say(environment, COPIED.replace("Invalid cross-device link", "Too many links")) == ()
    assert say(environment, CACHE.replace("/fallback", "/other")) == ()


def test_nobody_was_told(environment: Environment) -> None:
    """What is shown to nobody does not count: `--quiet`, or a program that reads the result."""
    say(environment, COPIED, saying=False)
    assert not os.path.exists(environment.told)
    assert say(environment, COPIED) == ()


def test_an_environment_that_is_made_anew(environment: Environment) -> None:
    """Then all is said again."""
    say(environment, COPIED)
    notes.forget(environment)
    assert say(environment, COPIED) == ()


def test_many(environment: Environment) -> None:
    """The file does not grow for ever."""
    for number in range(100):
        say(environment, f"note {number}")
    assert os.path.getsize(environment.told) < 1024
    assert say(environment, "note 99", "note 0") == ("note 99",)


def test_it_cannot_be_written(environment: Environment) -> None:
    """Then it is said each time, and nothing else is wrong."""
    os.mkdir(environment.told)
    assert say(environment, COPIED) == ()
    assert say(environment, COPIED) == ()
