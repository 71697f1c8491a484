"""Lock files of other tools in which values are others than they ought to be: read, or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envsync.errors import EnvsyncError
from envsync.lockfile import Choice, Sources, read
from envsync.python.facts import Interpreter

HASH = "sha256:" + "a" * 64
FILES = [{"file": "foo-1.0-py3-none-any.whl", "hash": HASH}, {"file": "foo-1.0.tar.gz", "hash": HASH}]
BAR = "https://host.invalid/bar-1.0-py3-none-any.whl"
SOURCE = {"type": "legacy", "url": "https://host.invalid/simple", "reference": "mine"}
POETRY: dict[str, Any] = {
    "package": [
        {"name": "foo", "version": "1.0", "groups": ["main", "dev"], "markers": "os_name == 'posix'", "files": FILES},
        {"name": "bar", "version": "1.0", "groups": ["dev"], "markers": {"dev": "extra == 'x'"}, "files": FILES},
        {"name": "foo", "version": "1.0", "groups": ["docs"], "files": FILES, "source": SOURCE},
    ],
    "extras": {"x": ["bar"]},
    "metadata": {"lock-version": "2.1", "python-versions": ">=3.9,<4.0 || ^5"},
}
PDM: dict[str, Any] = {
    "metadata": {
        "groups": ["default", "dev", "x"],
        "strategy": ["inherit_metadata"],
        "lock_version": "4.5.1",
        "targets": [{"requires_python": ">=3.9", "platform": "manylinux_2_17_x86_64", "implementation": "cpython"}],
    },
    "package": [
        {"name": "foo", "version": "1.0", "groups": ["default"], "marker": "os_name == 'posix'", "files": FILES},
        {"name": "bar", "version": "1.0", "groups": ["dev"], "url": BAR, "files": FILES},
        {"name": "baz", "version": "1.0", "groups": ["x"], "git": "https://host.invalid/r", "revision": "0"},
    ],
}
PIPFILE: dict[str, Any] = {
    "_meta": {
        "sources": [{"name": "mine", "url": "https://host.invalid/simple", "verify_ssl": False}],
        "requires": {"python_version": "3.11"},
    },
    "default": {"foo": {"version": "==1.0", "hashes": [HASH], "index": "mine", "markers": "os_name == 'posix'"}},
    "develop": {
        "bar": {"path": "./bar-1.0-py3-none-any.whl"},
        "baz": {"git": "https://host.invalid/r", "ref": "0"},
    },
}
PROJECT: dict[str, Any] = {
    "project": {"name": "sample", "optional-dependencies": {"x": ["bar"]}},
    "dependency-groups": {"dev": ["bar"]},
    "tool": {
        "poetry": {"package-mode": False, "group": {"docs": {"optional": True}}, "source": [SOURCE]},
        "pdm": {
            "distribution": False,
            "source": [{"name": "mine", "url": "https://host.invalid/simple", "include_packages": ["f*"]}],
            "resolution": {"excludes": ["qux"]},
        },
    },
}
LOCKS = {"poetry.lock": POETRY, "pdm.lock": PDM, "Pipfile.lock": PIPFILE}
WORDS = ["", "x", "*", "\0", "://", "https://[", "9" * 5000, "==1.0", "sha256:", '"', "os_name == '", "../..", "é\n"]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.booleans(), st.integers(-1, 2**70), st.floats(allow_nan=False), st.sampled_from(WORDS), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(WORDS), inner, max_size=2)),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to every value within one."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [found for key in keys for found in [(*path, key), *places(value[key], (*path, key))]]


def changed(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """Return the same with another value at a path."""
    if not path:
        return other
    if isinstance(value, dict):
        return {key: changed(each, path[1:], other) if key == path[0] else each for key, each in value.items()}
    return [changed(each, path[1:], other) if at == path[0] else each for at, each in enumerate(value)]


def toml(value: Any) -> str:
    """Write a value as TOML: tables within are inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\' or not c.isprintable() else c for c in text) + '"'


def written(value: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {toml(each)}\n" for key, each in value.items())


@pytest.mark.parametrize("name", LOCKS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_may_be_another(name: str, tmp_path: Path, interpreter: Interpreter, data: st.DataObject) -> None:
    """Whatever is in its place, somebody is told what is wrong, in a line each."""
    lock, project = LOCKS[name], PROJECT
    if name == "Pipfile.lock" or data.draw(st.booleans()):
        lock = changed(lock, data.draw(st.sampled_from(places(lock))), data.draw(VALUES))
    else:
        project = changed(project, data.draw(st.sampled_from(places(project))), data.draw(VALUES))
    text = json.dumps(lock) if name == "Pipfile.lock" else written(lock)
    (tmp_path / name).write_text(text, "utf-8", "surrogatepass")
    (tmp_path / "pyproject.toml").write_text(written(project), "utf-8", "surrogatepass")
    choice = data.draw(st.sampled_from([Choice(), Choice(all_groups=True, all_extras=True, no_install_project=True)]))
    refusal: EnvsyncError | None = None
    found: list[str] = []
    try:
        target = read(str(tmp_path / name)).select(interpreter, choice, sources=Sources(offline=True))
        found = [artifact.name for artifact in target.artifacts]
    except EnvsyncError as error:
        refusal = error
    assert len(set(found)) == len(found)
    assert refusal is None or (refusal.hint and len(refusal.message) < 3000)


@pytest.mark.parametrize("name", LOCKS)
def test_the_unchanged_one_is_read(name: str, tmp_path: Path, interpreter: Interpreter) -> None:
    """Or no change would show anything."""
    (tmp_path / name).write_text(json.dumps(LOCKS[name]) if name == "Pipfile.lock" else written(LOCKS[name]))
    (tmp_path / "pyproject.toml").write_text(written(PROJECT))
    (tmp_path / "foo-1.0-py3-none-any.whl").touch()
    sources = Sources(find_links=(str(tmp_path),), offline=True)
    target = read(str(tmp_path / name)).select(interpreter, Choice(no_default_groups=True), sources=sources)
    assert [artifact.name for artifact in target.artifacts] == ["foo"]
