"""Environment variables in requirements files: which there are, and what stands for them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.launch import variables
from envsync.launch.reading import content
from envsync.launch.request import Request

TEXTS = st.text(st.sampled_from("$${}{}A1_b /:@"), max_size=30)
PIPS = re.compile(r"\$\{([A-Z0-9_]+)\}")
"""As pip documents it."""


@given(TEXTS)
def test_finds_what_pip_finds(text: str) -> None:
    """A variable is `${NAME}` in capitals, digits and underscores, and nothing else is."""
    assert [(m.start(), m.end(), m[1]) for m in PIPS.finditer(text)] == list(variables.find(text))
    environ = {name: f"<{name}>" for _, _, name in variables.find(text)}
    assert variables.expand(text, environ) == PIPS.sub(lambda m: environ[m[1]], text)


LINES = [
    ("greet==${V}", {"V"}),
    ("${NAME}==${V} --hash=sha256:${H}", {"NAME", "V", "H"}),
    ("--index-url https://${USER}:${TOKEN}@host/${INDEX}", {"INDEX"}),
    ("--index-url https://${HOST}/simple", {"HOST"}),
    ("--index-url https://host/simple?token=${T}", {"T"}),
    ("--index-url https://host/${A}@${B}", {"A", "B"}),
    ("greet @ https://${TOKEN}@host/${FILE}.whl", {"FILE"}),
    ("${PLACE} --index-url https://${TOKEN}@host/", {"PLACE"}),
    ("-f https://${A}@one/ -f https://${B}@two/${A}", {"A"}),
    ("--index-url https://me@${HOST}/", {"HOST"}),
    ("--index-url ${URL}", {"URL"}),
]


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_user_information_decides_nothing(line: str, expected: set[str]) -> None:
    """A variable counts unless it only says who fetches."""
    assert variables.deciding(line) == expected


URLS = [
    ("https://me:secret@host/a@b", "https://host/a@b"),
    ("https://host/simple", "https://host/simple"),
    ("1.0", "1.0"),
    ("a@b", "a@b"),
    ("https://me@one/ https://you:x@two", "https://one/ https://two"),
    ("https://a@b@host", "https://host"),
]


@pytest.mark.parametrize(("text", "expected"), URLS)
def test_without_user(text: str, expected: str) -> None:
    """The user information of every URL is left out of what stands for a value."""
    assert variables.without_user(text) == expected
    assert variables.describe(["X"], {"X": text}) == variables.describe(["X"], {"X": expected})


def test_unset_is_not_empty() -> None:
    """A variable that is not set stands for something else than one that is set to nothing."""
    assert variables.describe(["X"], {}) == ["X unset"]
    assert variables.describe(["X"], {"X": ""}) != variables.describe(["X"], {})


def write(directory: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory / "requirements.txt")


def test_who_asks_for_something_else_shares_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, by which failures are shared, has all variables of a file and of what it includes."""
    lock = write(tmp_path, {"requirements.txt": "-r ${NAME}.txt\n", "a.txt": "greet==${V}\n-c c.txt\n", "c.txt": ""})
    (tmp_path / "c.txt").write_text("-i https://${TOKEN}@host/\n-r requirements.txt\n")

    def key(**environ: str) -> str:
        for name, value in {"NAME": "a", "V": "1.0", "TOKEN": "x", "OTHER": "", **environ}.items():
            monkeypatch.setenv(name, value)
        return Request({}, lock, "0" * 32, ".venv").key

    assert len({key(), key(V="2.0"), key(TOKEN="y"), key(NAME="b")}) == 4
    assert key(OTHER="z") == key()


def test_the_key_waits_for_no_pipe(tmp_path: Path) -> None:
    """What is no file is not opened for a guess at what it uses."""
    lock = write(tmp_path, {"requirements.txt": "-r pipe\n-c directory\n-r absent\n-r ${UNSET}\n"})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    assert variables.used_by(lock, {}, content) == ["UNSET unset"]
    assert variables.used_by(str(tmp_path / "pipe"), {}, content) == []
