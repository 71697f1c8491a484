"""What helps where a lock file cannot be used: commands of the tools that make lock files and wheels.

Each is a command that can be run as it stands, in the directory that one is in. None changes a file that it did not
make.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence

_BY_LOCK_FILE = {"uv.lock": "uv", "pdm.lock": "pdm", "poetry.lock": "poetry", "pipfile.lock": "pipenv"}
_LINE = r"line (\d+)(?: of `(.*)`)?"


def tool_of(name: str) -> str:
    """Name the tool that a lock file belongs to by its file name; empty if that is none of these."""
    return "uv" if name.endswith(".py.lock") else _BY_LOCK_FILE.get(name.lower(), "")


def export(directory: str, tool: str, *, name: str = "pylock.toml", kind: str = "", chosen: Sequence[str] = ()) -> str:
    """Give the command by which a tool makes a lock file of a project that envsync reads.

    :param directory: of the project
    :param tool: as in `created-by`; uv if it is none of those known here
    :param name: of the file that is made
    :param kind: "extra" or "group", if some of these are to be in it
    """
    names = [shlex.quote(each) for each in chosen]
    tool = tool.lower().partition("-")[0]
    output = shlex.quote(name)
    requirements = name if name.endswith(".txt") else "requirements.txt"
    if tool == "pdm":
        command = f"pdm export --format pylock{_each('--group', names)} --output {output}"
        # What is not locked, PDM leaves out without a word.
        command = f"pdm lock --group :all && {command}" if names else command
    elif tool == "poetry":
        flag = "--extras" if kind == "extra" else "--with"
        command = f"poetry export{_each(flag, names)} --output {shlex.quote(requirements)}"
    elif tool == "pipenv":
        command = f"pipenv requirements --hash > {shlex.quote(requirements)}"
    elif tool == "pip":
        project = f"'.[{','.join(chosen)}]'" if kind == "extra" else "."
        command = f"pip lock{_each('--group', names) if kind == 'group' else ''} --output {output} {project}"
    else:
        command = f"uv export --format pylock.toml{_each(f'--{kind}', names)} --output-file {output}"
    return f"`{_inside(directory)}{command}`"


def lock(path: str, tool: str = "", options: str = "") -> str:
    """Give the command that locks a project again; empty if its lock file belongs to no tool.

    :param path: of the lock file
    :param tool: that made it; default: the one that its name belongs to
    """
    directory, name = os.path.split(path)
    tool = tool or tool_of(name)
    if name.endswith(".py.lock"):
        options = f"--script {shlex.quote(name.removesuffix('.lock'))}"
    return f"`{_inside(directory)}{tool} lock{f' {options}' if options else ''}`" if tool else ""


_MADE_OF = (  # patterns, compiled when they are needed: every sync imports this, and hardly any fails
    (r"pixi\.(lock|toml)|(.*[.-])?conda-lock\.ya?ml|environment([-_.].*)?\.ya?ml", ""),
    (r"Pipfile", "pipenv lock"),
    (r"pyproject\.toml", "uv lock"),
    (r"requirements.*\.in", "uv pip compile --generate-hashes --output-file requirements.txt {}"),
    (r"setup\.(py|cfg)", "uv pip compile --generate-hashes --output-file requirements.txt {}"),
)


def first_lock(names: Iterable[str]) -> str:
    """Say how to come to a lock file where there is none.

    :param names: of the files that are there
    """
    for pattern, command in _MADE_OF:
        for name in sorted(names):
            if re.fullmatch(pattern, name) and command:
                return f"name one with --lock, or make one: `{command.format(shlex.quote(name))}`"
            if re.fullmatch(pattern, name):
                return (
                    f"`{name}` is a file of conda or pixi, whose packages are no wheels: list the Python packages that "
                    f"are meant in `requirements.in`, a line each; then {pin('requirements.in')}"
                )
    return "name one with --lock, or begin a project that has one: `uv init --bare && uv lock`"


def pin(path: str) -> str:
    """Give the command that pins all of a requirements file, with hashes, in another file."""
    directory, name = os.path.split(path)
    pinned = f"{name.removesuffix('.txt').removesuffix('.in')}.lock.txt"
    compiled = f"uv pip compile --generate-hashes --output-file {shlex.quote(pinned)} {shlex.quote(name)}"
    return f"pin all of it with `{_inside(directory)}{compiled}`, and name `{pinned}` with --lock"


def show(where: str, path: str) -> str:
    """Give the command that shows a place in a lock file: a line, or all of it."""
    return show_line(where, path) if re.match(_LINE, where) else f"`cat {shlex.quote(path)}` shows what it says"


def show_line(where: str, path: str) -> str:
    """Give the command that shows a line of a requirements file.

    :param where: as in "line 3" or "line 3 of `more.txt`"
    :param path: the file, if that does not say it
    """
    match = re.match(_LINE, where)
    assert match is not None
    return f"`sed -n {match[1]}p {shlex.quote(match[2] or path)}` shows it"


def build(places: Iterable[str]) -> str:
    """Give the command that builds wheels.

    :param places: what of, as pip takes it: `name==version`, a path, a URL
    """
    words = " ".join(shlex.quote(place) for place in dict.fromkeys(places))
    return f"build wheels with `pip wheel --no-deps --wheel-dir wheels {words}`, and lock those"


def relock(path: str, tool: str = "") -> str:
    """Give the command that makes a lock file anew.

    :param tool: as in `created-by` of a pylock file
    """
    directory, name = os.path.split(path)
    if owner := tool_of(name):
        script = name.removesuffix(".lock")
        which = f" --script {shlex.quote(script)}" if script.endswith(".py") else ""
        return f"lock again: `{_inside(directory)}{owner} lock{which}`"
    return f"lock again: {export(directory, tool, name=name)}"


def other_python(needed: str) -> str:
    """Give the command that takes another Python.

    :param needed: as `--python` takes it
    """
    return f"choose another Python with `envsync sync --python {shlex.quote(needed)}`"


def _each(flag: str, names: Sequence[str]) -> str:
    return "".join(f" {flag} {name}" for name in names)


def _inside(directory: str) -> str:
    return f"cd {shlex.quote(directory)} && " if directory else ""
