"""What the command line makes of a hint: it names the command that was given, with its options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from envsync.cli import tell
from envsync.errors import hints
from tests.conftest import ROOT

BUNDLE = ["bundle", "--to", "there", "--lock", "x.toml"]


@pytest.mark.parametrize(
    ("arguments", "hint", "expected"),
    [
        (BUNDLE, hints.ANOTHER_PYTHON, "envsync bundle --to there --lock x.toml --python 3"),
        (
            [*BUNDLE, "--python", "3.5"],
            "`envsync sync --python 3`",
            "envsync bundle --to there --lock x.toml --python 3",
        ),
        (["bundle", "--to", "there"], "`envsync sync --no-offline`", "envsync bundle --to there --no-offline"),
        (["bundle", "--to", "there"], hints.of_build("x 1"), "envsync bundle --to there --no-install-package x"),
        (["bundle", "--to", "there"], hints.AGAIN, "envsync bundle --to there"),
        (["bundle", "--to", "there"], hints.ELSEWHERE, "envsync sync --env '.venvs/{digest}'"),
        (["bundle", "--to", "there"], "`envsync sync --no-editable`", "envsync sync --no-editable"),
        (["bundle", "--to", "there"], "`envsync status` says it", "envsync status"),
        (["cache", "add", "--lock", "x.toml"], hints.ANOTHER_PYTHON, "envsync cache add --lock x.toml --python 3"),
        (["cache", "add"], "`envsync sync --env x`", "envsync sync --env x"),
        (["sync", "--lock", "x.toml"], hints.ANOTHER_PYTHON, "envsync sync --lock x.toml --python 3"),
        (["run", "--lock", "x.toml", "--", "true"], hints.ANOTHER_PYTHON, "envsync sync --lock x.toml --python 3"),
        (["bundle", "verify", "there"], "`envsync sync --python 3`", "envsync sync --python 3"),
    ],
)
def test_the_command_that_was_given(arguments: list[str], hint: str, expected: str) -> None:
    """What goes wrong in a bundle, or in `cache add`, is mended there, if the same option does it there."""
    assert f"`{expected}`" in tell.completed(hint, arguments)


def test_all_hints_at_a_sync() -> None:
    """In a bundle, those that stay are about an environment, which a bundle has not."""
    texts = {
        node.value
        for path in Path(ROOT, "envsync").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    flags = {
        flag for text in texts for hinted in re.findall(r"`envsync sync( [^`]*)`", text) for flag in hinted.split()
    }
    stay = {
        flag
        for flag in flags
        if flag.startswith("--") and "envsync sync" in tell.completed(f"`envsync sync {flag}`", BUNDLE)
    }
    assert stay == {"--allow-empty", "--busy", "--cache-fallback", "--env", "--link-mode", "--no-editable"}
