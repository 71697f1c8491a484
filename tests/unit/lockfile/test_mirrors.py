"""Nodes that reach nothing but a mirror: what is locked to be elsewhere is taken from there, whatever the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envsync.errors import UsageError
from envsync.lockfile import Choice, Sources, read
from envsync.lockfile.sources import mirrors_of
from envsync.lockfile.target import Artifact
from envsync.python.facts import Interpreter
from tests.unit.lockfile.conftest import Server

A = "a" * 64
B = "b" * 64
FOO = "foo-1.0-py3-none-any.whl"
FAR = "https://far.invalid"
PROJECT = """[project]
name = "sample"
version = "1.0"
[tool.poetry]
package-mode = false
[tool.pdm]
distribution = false
"""
POETRY = f"""[[package]]
name = "foo"
version = "1.0"
groups = ["main"]
files = [{{file = "{FOO}", hash = "sha256:{A}"}}]
[package.source]
%s
[metadata]
lock-version = "2.1"
"""
PDM = f"""[metadata]
groups = ["default"]
strategy = ["inherit_metadata", "static_urls"]
lock_version = "4.5.1"
[[package]]
name = "foo"
version = "1.0"
groups = ["default"]
files = [{{url = "{FAR}/files/{FOO}", hash = "sha256:{A}"}}]
"""
PIPFILE = {
    "_meta": {"sources": [{"name": "far", "url": f"{FAR}/simple"}]},
    "default": {"foo": {"version": "==1.0", "hashes": [f"sha256:{A}"]}},
}
PYLOCK = f"""lock-version = "1.0"
created-by = "test"
[[packages]]
name = "foo"
version = "1.0"
wheels = [{{name = "{FOO}", url = "{FAR}/files/{FOO}", hashes = {{sha256 = "{A}"}}}}]
"""
UV = f"""version = 1
requires-python = ">=3.9"
[[package]]
name = "sample"
version = "1.0"
source = {{ virtual = "." }}
dependencies = [{{ name = "foo" }}]
[[package]]
name = "foo"
version = "1.0"
source = {{ registry = "{FAR}/simple" }}
wheels = [{{ url = "{FAR}/files/{FOO}", hash = "sha256:{A}" }}]
"""
LOCKS = {
    "pylock.toml": PYLOCK,
    "pylock.archive.toml": f"""lock-version = "1.0"
created-by = "test"
[[packages]]
name = "foo"
archive = {{url = "{FAR}/files/{FOO}", hashes = {{sha256 = "{A}"}}}}
""",
    "several.txt": f"foo @ {FAR}/files/{FOO} --hash sha256:{B} --hash sha256:{A}\n",
    "requirements.txt": f"foo @ {FAR}/files/{FOO} --hash sha256:{A}\n",
    "pinned.txt": f"--index-url {FAR}/simple\nfoo==1.0 --hash sha256:{A}\n",
    "poetry.lock": POETRY % f'type = "legacy"\nurl = "{FAR}/simple"\nreference = "far"',
    "url/poetry.lock": POETRY % f'type = "url"\nurl = "{FAR}/files/{FOO}"',
    "pdm.lock": PDM,
    "Pipfile.lock": json.dumps(PIPFILE),
    "uv.lock": UV,
}

Select = Callable[..., Artifact]


@pytest.fixture
def select(tmp_path: Path, interpreter: Interpreter) -> Select:
    """Write a lock file of some format, and select the one wheel."""

    def select(name: str, choice: Choice = Choice(), **options: Any) -> Artifact:  # noqa: B008
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(LOCKS[name])
        (path.parent / "pyproject.toml").write_text(PROJECT)
        (artifact,) = read(str(path)).select(interpreter, choice, **options).artifacts
        return artifact

    return select


@pytest.mark.parametrize("name", LOCKS)
def test_an_index_that_is_given_is_asked_first(select: Select, server: Server, name: str) -> None:
    """By the name of the file and its hash; nothing else is asked."""
    server.project("foo", f"{FOO}#sha256={A}")
    artifact = select(name, sources=Sources(index_urls=(server.index,)))
    assert artifact.url == f"{server.url}/files/{FOO}"
    assert A in {artifact.sha256, *(digest for _, digest in artifact.alternatives)}
    assert artifact.missing is None
    assert server.asked == ["/simple/foo/"]


@pytest.mark.parametrize("name", LOCKS)
def test_a_page_with_links_that_is_given_is_asked_first(select: Select, server: Server, name: str) -> None:
    """Where there is no index."""
    server.page("/links.html", f'<a href="/files/{FOO}#sha256={A}">{FOO}</a>')
    artifact = select(name, sources=Sources(find_links=(f"{server.url}/links.html",), no_index=True))
    assert artifact.url == f"{server.url}/files/{FOO}"


@pytest.mark.parametrize("name", LOCKS)
def test_a_directory_that_is_given_is_looked_into_first(select: Select, tmp_path: Path, name: str) -> None:
    """And nothing is asked."""
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / FOO).touch()
    artifact = select(name, sources=Sources(find_links=(str(tmp_path / "links"),)))
    assert artifact.path == str(tmp_path / "links" / FOO)


@pytest.mark.parametrize("name", ["pylock.toml", "requirements.txt", "pdm.lock", "uv.lock", "url/poetry.lock"])
def test_what_the_given_index_has_not_is_taken_from_its_url(select: Select, server: Server, name: str) -> None:
    """A file of another hash is another file."""
    server.project("foo", f"{FOO}#sha256={B}")
    assert select(name, sources=Sources(index_urls=(server.index,))).url == f"{FAR}/files/{FOO}"


@pytest.mark.parametrize("name", ["pylock.toml", "requirements.txt", "pdm.lock", "uv.lock"])
def test_nothing_is_asked_for_what_is_in_the_store(select: Select, server: Server, name: str) -> None:
    """However far away it is."""
    select(name, sources=Sources(index_urls=(server.index,)), known=lambda sha256: FOO)
    assert server.asked == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_beginning_of_urls_has_a_mirror(select: Select, server: Server, name: str) -> None:
    """Of files, and of indexes, and of the files that an index links to."""
    server.page("/m/simple/foo/", f'<a href="{FAR}/files/{FOO}#sha256={A}">{FOO}</a>')
    artifact = select(name, sources=Sources(mirrors=((FAR, f"{server.url}/m/"),)))
    assert artifact.url == f"{server.url}/m/files/{FOO}"


@pytest.mark.parametrize("name", ["pylock.toml", "requirements.txt", "pdm.lock", "uv.lock"])
def test_a_mirror_may_be_a_directory(select: Select, tmp_path: Path, name: str) -> None:
    """It counts offline, too."""
    sources = Sources(mirrors=((FAR, tmp_path.as_uri()),), offline=name != "requirements.txt")
    assert select(name, sources=sources).path == str(tmp_path / "files" / FOO)


@pytest.mark.parametrize(
    ("url", "mirrored"),
    [
        ("https://a.invalid/x", "https://m.invalid/x"),
        ("https://a.invalid", "https://m.invalid"),
        ("https://a.invalid.evil/x", "https://a.invalid.evil/x"),
        ("https://a.invalid/b/x", "https://user:secret@n.invalid/x"),
        ("https://user:other@a.invalid/x", "https://m.invalid/x"),
        ("https://other.invalid/https://a.invalid/x", "https://other.invalid/https://a.invalid/x"),
    ],
)
def test_the_longest_beginning_counts(url: str, mirrored: str) -> None:
    """At the end of a part of the path; the user information of who is not asked goes nowhere."""
    pairs = mirrors_of(["https://a.invalid=https://m.invalid/", "https://a.invalid/b/=https://user:secret@n.invalid"])
    sources = Sources(mirrors=pairs)
    assert sources.mirrored(url) == mirrored
    assert "secret" not in repr(sources)


@pytest.mark.parametrize("text", ["https://a", "a=b", "https://a=b", "=https://b", "https://[x=https://user:secret@b"])
def test_what_is_no_pair_of_urls_is_refused(text: str) -> None:
    """Nobody knows where its password is, so it is not shown."""
    with pytest.raises(UsageError, match="no pair of URLs") as caught:
        mirrors_of([text])
    assert "secret" not in str(caught.value)
    assert "--mirrors" in (caught.value.hint or "")
