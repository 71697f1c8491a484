"""Who fetches from the indexes of a project of uv's, and which of uv's variables do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsync.launch import options
from envsync.lockfile.uv.variables import UNHEEDED, index_urls, unheeded

PROJECT = """\
[[tool.uv.index]]
name = "my-own.index"
url = "https://index.invalid/simple"

[[tool.uv.index]]
name = "other"
url = "https://someone:secret@other.invalid/simple"

[[tool.uv.index]]
url = "https://nameless.invalid/simple"
"""


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({}, "https://index.invalid/simple"),
        ({"UV_INDEX_MY_OWN_INDEX_USERNAME": "me"}, "https://me@index.invalid/simple"),
        ({"UV_INDEX_MY_OWN_INDEX_PASSWORD": "p:@/"}, "https://:p%3A%40%2F@index.invalid/simple"),
        (
            {"UV_INDEX_MY_OWN_INDEX_USERNAME": "me", "UV_INDEX_MY_OWN_INDEX_PASSWORD": "word"},
            "https://me:word@index.invalid/simple",
        ),
        ({"UV_INDEX__USERNAME": "nobody"}, "https://index.invalid/simple"),
    ],
)
def test_variables_are_named_after_the_index(tmp_path: Path, environ: dict[str, str], first: str) -> None:
    """In capitals, with a line under what is neither a letter nor a digit."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    others = ("https://someone:secret@other.invalid/simple", "https://nameless.invalid/simple")
    assert index_urls(str(tmp_path / "uv.lock"), environ) == (first, *others)
    assert index_urls(str(tmp_path / "pylock.toml"), environ) == ()


def test_variables_win_over_the_url(tmp_path: Path) -> None:
    """As uv has it: what is in the file is often a name alone."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    environ = {"UV_INDEX_OTHER_USERNAME": "me", "UV_INDEX_OTHER_PASSWORD": "word"}
    assert index_urls(str(tmp_path / "uv.lock"), environ)[1] == "https://me:word@other.invalid/simple"


@pytest.mark.parametrize("text", ["", "[", "tool = 1", "[tool.uv]\nindex = 3\n", "[[tool.uv.index]]\nname = 'x'\n"])
def test_what_says_nothing(tmp_path: Path, text: str) -> None:
    """Or makes no sense."""
    assert index_urls(str(tmp_path / "uv.lock"), {}) == ()
    (tmp_path / "pyproject.toml").write_text(text)
    assert index_urls(str(tmp_path / "uv.lock"), {}) == ()


def test_what_is_not_heeded() -> None:
    """It is said once, of those that are set, and the documentation names all of them."""
    assert unheeded("a/uv.lock", {"UV_BUILD_CONSTRAINT": "b.txt", "UV_ENV_FILE": ".env", "UV_ISOLATED": ""}) == (
        "not heeded, though uv would: UV_BUILD_CONSTRAINT, UV_ENV_FILE",
    )
    assert unheeded("a/uv.lock", {"UV_FROZEN": "1"}) == unheeded("pylock.toml", {"UV_BUILD_CONSTRAINT": "b.txt"}) == ()
    page = (Path(__file__).parents[3] / "docs/uv.md").read_text()
    assert [name for name in UNHEEDED if f"`{name}`" not in page] == []
    assert not {variable for option in options.ANYWHERE for variable in option.uv} & set(UNHEEDED)
