"""Find out what `{digest}` stands for, and leave it for the next (`envsync.launch.names`).

A name is left only if what it was found by can be seen again for a few operations. That is so for whatever is in the
lock file and in what it refers to. It is so for `--python` if it is answered by the Python that runs envsync, which is
asked first and needs no look at all; by a file, which is looked at; or by a Python on PATH. In that last case, all of
PATH is looked at up to where it is: the directories, which change if a file comes or goes, and in them every file that
might be meant, through all links. What is not left:

- a Python that is not on PATH, but where uv keeps its own
- one that a script starts, as the shims of pyenv, mise and asdf do, or that comes after such a script: those follow
  variables and files of their own
- what was changed within the last two seconds: it may change again without another time

A directory that cannot be written to costs its users the slow way each time, which `--verbose` says. Where several
users share one, the directory of names can be written to by those who may write to the one above. With its sticky bit
set, nobody can add to a file of somebody else. Of more than 500 files the older half goes; whoever misses one makes it
again.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from envsync.errors import FilesystemError
from envsync.launch import Environment, names, stamp
from envsync.launch.messages import say
from envsync.launch.names import Name
from envsync.launch.reading import content
from envsync.launch.request import describe_python, looks_at, own_python, own_version
from envsync.leading.goal import further_of, inputs_of, python_of, read_lock_file, sources_of
from envsync.python import interpreter
from envsync.system import atomic, core, groups, native, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from envsync.launch.request import Request
    from envsync.lockfile import LockFile
    from envsync.lockfile.target import Source
    from envsync.python.facts import Interpreter

MOST_FILES = 500
MOST_SEEN = 24
"""So many looks at most are worth it."""
REST_SECONDS = 2.0
"""What was changed so lately may be changed again within the same tick of a filesystem's clock."""
FULL_SECONDS = 60.0
"""A file with as many names as it may have is not written more often than that: more than those take turns."""


def environment_by_digest(request: Request, cache: str) -> Environment:
    """Return the environment of a request that names it by `{digest}`, and let the request know the name.

    Nothing is written yet: whoever goes on to have the environment may `leave` the name beside it.
    """
    began = time.time()
    spec = python_of(request)
    base = interpreter.find(spec) if spec is not None else interpreter.own_base()
    facts = interpreter.inspect(base, cache)
    name = _name(request, facts)
    request.name = name if _find_again(name, spec, base, facts, began) else None
    return request.environment(name.digest, name.python)


def _name(request: Request, facts: Interpreter) -> Name:
    parsed = read_lock_file(request)
    inputs = inputs_of(request, parsed, _trees_of(request, parsed, facts))
    name = Name("")
    name.python = describe_python(facts.implementation, facts.release)
    name.version = facts.markers["python_full_version"]
    name.looks_at = list(looks_at(b"\n".join([parsed.contents[0], *parsed.canonical[1:]])))
    name.inputs = further_of(request, inputs)
    name.variables = list(inputs.variables)
    name.unhashed = inputs.unhashed
    name.placed = inputs.placed
    name.local_files = list(inputs.local_files)
    name.digest = names.digest_of(name, request)
    return name


def _trees_of(request: Request, parsed: LockFile, facts: Interpreter) -> tuple[Source, ...]:
    """Return the directories that are installed: what says how they are built decides the name, too."""
    if not parsed.placed:
        return ()
    from envsync.lockfile import choice_of

    choice = choice_of(request.settings, request.member)
    return parsed.select(facts, choice, sources=sources_of(request)).trees


# How to see that it is the same interpreter


def _find_again(name: Name, spec: str | None, base: str, facts: Interpreter, began: float) -> bool:
    """Say in a name how to see that the Python is the one that was found. False if that takes too much.

    :param began: when it was begun to look for it, in seconds since the epoch
    """
    if _is_own(spec, base):
        return (name.python, name.version) == (own_python(), own_version())
    if not _is_itself(base, facts):
        return False
    if spec is not None and core.has_directory(spec):
        paths = [spec]
    elif spec is not None and (found := _on_path(spec, base)) is not None:
        name.path, paths = found
    else:
        return False
    try:
        name.seen = {path: names.look_at(path) for path in paths}
    except OSError:
        return False
    return len(paths) <= MOST_SEEN and all(_is_at_rest(path, began) for path in paths)


def _is_own(spec: str | None, base: str) -> bool:
    """Tell whether it is the Python that runs envsync, and would be whatever else there is."""
    if spec is None:
        return True
    from python_discovery import PythonSpec

    return PythonSpec.from_string_spec(spec).path is None and base == paths.realpath(interpreter.own_base())


def _is_itself(base: str, facts: Interpreter) -> bool:
    """Tell whether a file is a Python, and not a script that starts one."""
    try:
        return os.path.samefile(base, facts.executable)
    except OSError:
        return False


def _on_path(spec: str, base: str) -> tuple[str, list[str]] | None:
    """Return what PATH begins with up to where an interpreter is found, and what there decides that it is."""
    seen: list[str] = []
    entries = os.environ.get("PATH", "").split(os.pathsep)
    for number, directory in enumerate(entries, start=1):
        if not os.path.isabs(directory):
            continue  # nobody looks there
        candidates = list(_candidates(spec, directory))
        if any(map(_is_script, candidates)):
            return None
        seen += [directory, *candidates]
        if any(paths.realpath(path) == base for path in candidates):
            return os.pathsep.join(entries[:number]), list(dict.fromkeys(seen))
    return None


def _candidates(spec: str, directory: str) -> Iterator[str]:
    """Yield the files in a directory that a search tries."""
    from python_discovery import PythonSpec

    pattern = PythonSpec.from_string_spec(spec).generate_re(windows=False)
    try:
        found = sorted(os.listdir(directory))
    except OSError:
        return
    yield from (f"{directory}/{name}" for name in found if name == spec or pattern.fullmatch(name))


def _is_script(path: str) -> bool:
    """Tell whether a file may start one Python today and another one tomorrow."""
    try:
        with open(path, "rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False  # nobody can start it


def _is_at_rest(path: str, began: float) -> bool:
    try:
        return os.stat(path).st_mtime < began - REST_SECONDS
    except OSError:
        return True  # there is nothing, or nothing that may be looked at


# Where the names are


def leave(request: Request) -> None:
    """Leave the name of a request for the next, if it was found out, and can be seen to be the same.

    Where that fails, the next one finds it out again, and those are told who ask for more.
    """
    name, request.name = request.name, None
    if not isinstance(name, Name):
        return
    try:
        _leave(request, name)
    except (OSError, FilesystemError) as error:
        if request.flag("verbose"):
            say(f"what `{{digest}}` stands for is found out anew each time: {error}")


def _leave(request: Request, name: Name) -> None:
    """Add a name to those that are there, which may be found by several contents of inputs.

    :raises OSError: its file or directory cannot be looked at or made
    :raises FilesystemError: it cannot be written
    """
    path, directory = names.path_of(request), names.directory_of(request)
    there = _there(path)
    same = next((each for each in there if _means(each) == _means(name)), None)
    if same is None:
        if len(there) >= names.KEPT and time.time() - os.stat(path).st_mtime < FULL_SECONDS:
            return
        there = [*there, name][-names.KEPT :]
    elif all(here.seen[0] in before.seen for before, here in zip(same.inputs, name.inputs, strict=True)):
        return  # somebody else was here first
    else:
        for before, here in zip(same.inputs, name.inputs, strict=True):
            before.seen = stamp.latest(before.seen, here.seen[0])
    _make(directory)
    atomic.write(path, names.dump(there))
    groups.grant(path, groups.bits(directory))
    _clear(directory)


def _there(path: str) -> list[Name]:
    try:
        return names.load(content(path))
    except FileNotFoundError:
        return []


def _means(name: Name) -> tuple[object, ...]:
    """Return what tells a name from others, whatever else the contents of its inputs have."""
    inputs = [(each.path, each.counts) for each in name.inputs]
    return name.digest, name.python, name.version, name.path, name.seen, name.looks_at, inputs


def _make(directory: str) -> None:
    """Make the directory of names. Those who share the one above share it."""
    try:
        os.mkdir(directory)
    except FileExistsError:
        return
    native.chmod(directory, stat.S_IMODE(os.stat(os.path.dirname(directory) or ".").st_mode))


def _clear(directory: str) -> None:
    """Remove the older half of the files if there are too many: locks of projects that are long gone."""
    files = os.listdir(directory)
    if len(files) <= MOST_FILES:
        return
    found = sorted((status.st_mtime, path) for path in files if (status := _status(f"{directory}/{path}")) is not None)
    for _, path in found[: len(found) // 2]:
        atomic.discard(f"{directory}/{path}")


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None
