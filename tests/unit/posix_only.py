"""What a test uses that Windows has not: such a test is POSIX's own.

One rule instead of a mark on each: the source of a test, and of what it names in its own module, says what it uses.
On Windows, modules that import what is not there are skipped, and so are tests that fork or send signals. All others
are run; one that fails is skipped after all if it uses any of the rest, with what it uses as the reason. What fails and
uses nothing of the kind is a fault, of the test or of envsync.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    r"^(?:import|from) (fcntl|posix|pwd|grp|resource|termios|pty|_posixsubprocess)\b": "imports ",
    r"^from envsync\.system\.(forking|mounts|groups)\b": "is of ",
    r"^from envsync\.system import .*\b(posix(?:_core)?)\b": "is of ",
    r"^from envsync\.waiting import .*\b(neighbours|speaking)\b": "is of what a node's processes share, which is ",
    r"^from envsync\.integrations\.(multiprocessing)\b": "is of ",
    r"^from envsync\.building import .*\b(supervised|supervisor)\b": "is of ",
}
"""Pattern → what an import of a module says that matches."""
ATTRIBUTES = r"signal\.SIG(?:HUP|KILL|USR1|QUIT|STOP|CONT)|os\.(?:uname|gete?uid)"
"""What a module asks for as it is imported that is not there."""
CANNOT_BEGIN = {
    r"\bos\.(fork|waitpid|forkpty|register_at_fork|wait|killpg)\b|\bforking\b|\bforks?\b": "forks",
    r"\bSIG(KILL|STOP|CONT|HUP|USR1|USR2|ALRM|PIPE|CHLD|XFSZ|QUIT)\b|\bsetitimer|send_signal|\bpthread_": "signals",
    r"mkfifo|os\.mknod|AF_UNIX": "pipes and sockets with names",
    r"#!\{sys\.executable\}|[\"']/bin/(false|cat|sh)[\"']": "programs of POSIX, and scripts",
}
"""Pattern → what it is: a test that uses it may never end there."""
USES = {
    r"\b(fcntl|resource|pwd|termios)\b": "modules of POSIX",
    r"\bos\.(umask|chown|get[er]?uid|setuid|getgid|getgroups)\b|\bgroups\.|\bnobody\b": "users and groups",
    r"\bchmod\b|S_IMODE|st_mode|\bMODES\b|\b0o[0-7]{3}\b": "modes of files",
    r"symlink|readlink": "symbolic links, which take a privilege there",
    r"[\"'f ]/(proc|dev|bin|etc|tmp|usr|var|home|nfs|mnt|site|env|cache|a|x|no|nowhere)\b": (
        "paths that begin with a slash"
    ),
    r"\bos\.(uname|confstr|sysconf|sched_|p?readv?\b|pwrite|statvfs|major|minor|sendfile)": "calls of POSIX",
    r"\bos\.(memfd|fch|gets?p?g?id|set_blocking)": "more calls of POSIX",
    r"\bos, (call|\"open\")": "an open(2) that fails, where Windows has another call",
    r"\bas reader\b": "a file that is replaced while somebody has it open",
    r"fsdecode|surrogate": "names that are bytes",
    r"No such file|No space|denied|not a directory|not permitted": "the words of other systems' errors",
    r"\bdescriptors\(\)|\bcycle\.holds\b|[\"']posix\.": "what /proc says, or POSIX's own modules do",
    r"dir_fd|O_DIRECTORY|O_NOFOLLOW|O_CLOEXEC|O_NONBLOCK": "flags of open(2), and names relative to a descriptor",
    r"pass_fds|preexec_fn|start_new_session|\bexecv": "what a child inherits by number",
    r"[\"'/]?\b(bin|lib)/|#!|\bsh\b|\.sh\b": "the layout and the scripts of POSIX",
    r"\bE(NOSYS|ROFS|STALE|XDEV|NOTSUP|LOOP|BUSY|ISDIR|NOTDIR|NOLCK)\b": "errors that have other numbers there",
    r"\bmountinfo\b|\bmounts\.|\blinux\b|\bdarwin\b|\bglibc|\bmusl|\bmanylinux": "the tables of another system",
}
"""Pattern → what it is: a test that uses it may fail there."""


def reason(test: pytest.Function, uses: Mapping[str, str]) -> str:
    """Say what a test uses that Windows has not, itself or by a fixture; empty if it is for every system."""
    fixtures = (each.func for found in test._fixtureinfo.name2fixturedefs.values() for each in found)
    functions = [test.function, *(each for each in fixtures if each.__module__ == test.function.__module__)]
    sources = [source for each in functions for source in (inspect.getsource(each), *_named_by(each).values())]
    found = [what for pattern, what in uses.items() if any(re.search(pattern, source) for source in sources)]
    return f"POSIX's own: {', '.join(found)}" if found else ""


def reason_of_module(source: str) -> str:
    """Say why a test module cannot be imported there, or need not; empty if it is for every system."""
    found = _of_module(source)
    for name in re.findall(r"^from (tests\.[\w.]+) import", source, re.MULTILINE):
        path = ROOT / (name.replace(".", "/") + ".py")
        found += [
            f"imports {name}, which {each}" for each in _of_module(path.read_text("utf-8") if path.is_file() else "")
        ]
    return f"POSIX's own: {', '.join(found)}" if found else ""


def _of_module(source: str) -> list[str]:
    """Look at what importing it runs, not at what a function does, nor at what a string says."""
    tree = ast.parse(source)
    imports = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = [
        f"{what}{match[1]}"
        for pattern, what in MODULES.items()
        for each in imports
        if (match := re.match(pattern, each))
    ]
    asked = {ast.unparse(node) for node in _run_at_once(tree) if isinstance(node, ast.Attribute)}
    return found + [f"has {each}" for each in sorted(asked) if re.fullmatch(ATTRIBUTES, each)]


def _run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what importing a module evaluates: everything but the bodies of functions."""
    yield node
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for child in getattr(node, "decorator_list", []) if is_function else ast.iter_child_nodes(node):
        yield from _run_at_once(child)


def _named_by(test: Callable[..., Any]) -> dict[str, str]:
    """Return the sources of what the test names in its own module, and of what that names: by name."""
    module = inspect.getmodule(test)
    sources = {} if module is None else _sources(module)
    found: dict[str, str] = {}
    looked = [inspect.getsource(test)]
    while looked:
        words = set(re.findall(r"\w+", looked.pop()))
        new = {name: source for name, source in sources.items() if name in words and name not in found}
        found.update(new)
        looked += new.values()
    return found


@cache
def _sources(module: ModuleType) -> dict[str, str]:
    text = inspect.getsource(module)
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith(("test", "Test")):
            found[node.name] = ast.get_source_segment(text, node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = ast.get_source_segment(text, node) or ""
    return found
