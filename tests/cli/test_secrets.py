"""A password in a URL that is given where a directory is wanted is not shown by any command."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import FIXTURES

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SOURCE = Path(__file__).parents[2] / "envsync"
URL = "https://user:hunter2@host/x"
ENV, CACHE = ("--env", URL), ("--cache-dir", URL)
LOCK = ("--lock", str(FIXTURES / "pylock.toml"))
COMMANDS = [
    ("sync", *LOCK, *ENV, *CACHE),
    ("sync", *LOCK, *ENV, "--dry-run"),
    ("status", *ENV),
    ("check", *ENV),
    ("check", *ENV, "--repair"),
    ("doctor", *ENV, *CACHE, "--cache-fallback", URL),
    ("cache", "dir", *CACHE),
    ("cache", "size", *CACHE),
    ("cache", "prune", *CACHE),
    ("cache", "clean", *CACHE),
    ("cache", "verify", *CACHE),
    ("sync", "--lock", URL),
]


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_directory_that_is_a_url(run_envsync: Run, words: tuple[str, ...], form: tuple[str, ...]) -> None:
    """It is taken for a path, so it comes back in what is said; without its password."""
    run_envsync("sync", *LOCK, *ENV, *CACHE)
    done = run_envsync(*words, *form)
    assert "--dry-run" in words or "host/x" in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr


PRINTING = {
    "launch/messages.py",
    "cli/main.py",
    "__main__.py",
    "cli/last_error.py",
    "python/interpreter_child.py",
    "bundling/source_hash_child.py",
}
"""Where `print` is: what hides secrets; a version; what is wrong before anything is known, or a fault of ours, without
secrets; what only we read."""


def test_all_that_is_printed_goes_where_secrets_are_hidden() -> None:
    """No module prints by itself."""
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert found <= PRINTING
