"""Hints on Windows: the same, in the words of PowerShell."""

from __future__ import annotations

import ast
import re

import pytest

from envsync.system import native, powershell
from tests.conftest import ROOT

SOURCES = [path for path in (ROOT / "envsync").rglob("*.py") if path.name != "powershell.py"]
POSIX = re.compile(r"\b(ls -|df -|less \S|sed -|export \w|chmod |ulimit|iconv|unset |grep )")
"""What PowerShell does not know, or takes for something else."""
SPOKEN = {
    "`ls -la 'C:/a b'` says whose it is; see": "`Get-Acl 'C:/a b'` says whose it is; see",
    "`ls -l C:/x` says who may execute it": "`Get-Acl C:/x` says who may execute it",
    "`ls -la C:/x` says who owns them": "`Get-Acl C:/x` says who owns them",
    "`ls -ld C:/x` shows what is there": "`Get-Item -Force C:/x` shows what is there",
    "`ls -a C:/x` shows what is there": "`Get-ChildItem -Force C:/x` shows what is there",
    "`df -h C:/` says how much is left": "`Get-PSDrive -PSProvider FileSystem` says how much is left",
    "`less C:/log` shows all": "`Get-Content C:/log` shows all",
    "`sed -n 7p C:/lock` shows it": "`Get-Content C:/lock -TotalCount 7 | Select-Object -Last 1` shows it",
    "`grep -nE 'a(b|c)' pyproject.toml` shows where": "`Select-String 'a(b|c)' pyproject.toml` shows where",
    "see where with `export ENVSYNC_DEBUG=1`, and": "see where with `$env:ENVSYNC_DEBUG = '1'`, and",
    "`export TOKEN=...`": "`$env:TOKEN = '...'`",
    "into ~/.netrc, which only you may read: `chmod 600 ~/.netrc`": "into ~/.netrc, which only you may read",
    "allow more open files: `ulimit -n` says how many there may be": "allow more open files",
    "perhaps; `ulimit -a` says those of this shell; then `envsync sync`": "perhaps; then `envsync sync`",
    "remove it: `rm 'C:/a b'`": "remove it: `rm 'C:/a b'`",
}


@pytest.mark.parametrize("hint", SPOKEN)
def test_what_is_said(hint: str) -> None:
    """Each command has a counterpart or is left out, and what was said so once stays."""
    assert powershell.spoken(hint) == SPOKEN[hint]
    assert powershell.spoken(SPOKEN[hint]) == SPOKEN[hint]


def test_no_hint_is_left_in_the_words_of_another_shell() -> None:
    """Of all texts in the sources with a command in backquotes, none has one that PowerShell does not know."""
    found = [text for path in SOURCES for text in texts(ast.parse(path.read_text("utf-8")))]
    posix = [text for text in found if any(POSIX.search(command) for command in commands(text))]
    assert len(posix) > 15
    assert [text for text in posix if any(POSIX.search(each) for each in commands(powershell.spoken(text)))] == []


def test_who_speaks_so() -> None:
    """Windows alone."""
    hint = "`df -h C:/` says how much is left"
    assert (native.spoken(hint) == hint) == (native.NAME != "windows")


def commands(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def texts(tree: ast.AST) -> list[str]:
    """Return all texts but docstrings, with a name for whatever is put into them."""
    found, within = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            within.update(map(id, node.values))
            found.append("".join(part.value if isinstance(part, ast.Constant) else "7" for part in node.values))
        elif isinstance(node, ast.Expr):
            within.add(id(node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            found.append(node.value)
    return found
