"""Environments that a sync has made, named by `{digest}`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import envsync
from envsync.environments.known import Known, Surroundings, look
from envsync.environments.removal import Removal, remove
from envsync.environments.template import Template
from tests.environments import FIXTURES


@pytest.fixture
def template(tmp_path: Path) -> Template:
    return Template(f"{tmp_path}/envs/{{digest}}")


@pytest.fixture
def environment(template: Template) -> Path:
    """One that is current, and that nobody runs in."""
    return Path(envsync.sync(str(FIXTURES / "pylock.toml"), env=template.text).env)


@pytest.fixture
def looked(template: Template) -> Callable[[], Known]:
    """Look at the one environment that there is."""

    def look_at_it() -> Known:
        (found,) = template.find()
        known = look(found, Surroundings.here())
        assert known is not None
        return known

    return look_at_it


@pytest.fixture
def removed(looked: Callable[[], Known]) -> Callable[[], Removal]:
    """Remove it, if that may be."""

    def remove_it() -> Removal:
        done = remove(looked(), Surroundings.here(), time.monotonic())
        assert done is not None
        return done

    return remove_it
