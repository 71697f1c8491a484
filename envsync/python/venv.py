"""Make the skeleton of a virtual environment with `venv`, once for each interpreter, and by its pattern ever after.

`venv` imports logging, shutil and subprocess, and for another Python than ours it is a process of its own: 40 to 100
ms, of a sync that takes 400. What it makes depends on the interpreter and on the environment's path alone, so the
first skeleton of an interpreter is made in the cache, and kept as a pattern in which the path is left open.

A path with a character that some shell may want quoted is left to `venv` itself, for its scripts quote by rules that
have changed from version to version.
"""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace
from typing import Any, NamedTuple

from envsync.errors import FilesystemError, InterpreterError
from envsync.python.facts import Interpreter
from envsync.python.interpreter import own_base
from envsync.system import atomic, core, groups, native, paths, records

KEPT = ".gitignore"
"""What the `venv` of Python 3.13 makes, and an environment that is made anew has already."""
_ENV = "@envsync-environment@"
_PROMPT = "@envsync-prompt@"
_NAME = "envsync-pattern"
"""The directory's name that the first skeleton is made with; scripts show it in the prompt."""


class Pattern(NamedTuple):
    """A skeleton with its path left open. All names are relative to the environment."""

    directories: list[str]
    """Parents first."""
    links: dict[str, str]
    files: dict[str, tuple[int, str]]
    """Name → permissions, of which only whether it can be executed counts, and content."""

    @property
    def is_whole(self) -> bool:
        """Whether nobody has removed a part of it before it was read, as far as that can be seen."""
        names = {*self.links, *self.files}
        is_whole = names >= {"pyvenv.cfg", core.PYTHON, f"{core.BIN}/activate"}
        return is_whole and any(name.endswith("/site-packages") for name in self.directories)

    def render(self, path: str) -> None:
        """Make the skeleton in a directory that exists.

        :raises FilesystemError: it cannot be made, or something is there already
        """
        try:
            for name in self.directories:
                os.makedirs(f"{path}/{name}", exist_ok=True)
            for name, target in self.links.items():
                os.symlink(target, f"{path}/{name}")
            for name, (kept, text) in self.files.items():
                if name == KEPT and os.path.lexists(f"{path}/{name}"):
                    continue
                mode = 0o777 if kept & stat.S_IXUSR else 0o666  # the pattern was made under another umask
                content = text.replace(_ENV, path).replace(_PROMPT, os.path.basename(path))
                fd = core.open_file(f"{path}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                with open(fd, "w", encoding="utf-8", newline="") as file:
                    file.write(content)
        except OSError as error:
            raise FilesystemError("make environment", path, error) from error


def is_plain(path: str) -> bool:
    """Tell whether no shell wants a path quoted."""
    return path.isascii() and all(c.isalnum() or c in "_./-" for c in path)


def pattern_of(base: Interpreter, cache: str, inherited: int) -> Pattern | None:
    """Return the pattern of an interpreter's skeletons; None if it cannot be kept as one.

    :raises InterpreterError: `venv` failed
    """
    kept = f"{cache}/v1/skeletons/{base.key}.json"
    value: dict[str, Any] = records.load(kept)
    try:
        files = {name: (mode, text) for name, (mode, text) in value["files"].items()}
        return Pattern(value["directories"], value["links"], files)
    except atomic.SENSELESS:
        pass  # it is made anew
    return _make(base, cache, kept, inherited)


def _make(base: Interpreter, cache: str, kept: str, inherited: int) -> Pattern | None:
    workspace = f"{cache}/v1/tmp/{os.urandom(8).hex()}"
    model = f"{workspace}/{_NAME}"
    if not is_plain(model):
        return None
    try:
        os.makedirs(model)
    except OSError:
        return None  # a read-only cache
    try:
        run_venv(base.executable, model, inherited)
        pattern = _read(model)
        if not pattern.is_whole:
            return None
        groups.write(cache, kept, pattern._asdict())
    except (OSError, FilesystemError, UnicodeDecodeError):
        return None
    except InterpreterError:
        if os.path.lexists(model):
            raise
        return None  # somebody has removed the cache
    finally:
        atomic.discard_tree(workspace)
    return pattern


def _read(model: str) -> Pattern:
    directories: list[str] = []
    links: dict[str, str] = {}
    files: dict[str, tuple[int, str]] = {}
    for directory, names, entries in os.walk(model):
        for name in sorted(names + entries):
            path = f"{directory}/{name}"
            relative = path[len(model) + 1 :]
            if os.path.islink(path):
                links[relative] = os.readlink(path)
            elif os.path.isdir(path):
                directories.append(relative)
            else:
                with open(path, encoding="utf-8", newline="") as file:
                    text = file.read().replace(model, _ENV).replace(_NAME, _PROMPT)
                files[relative] = (os.stat(path).st_mode & 0o777, text)
    return Pattern(directories, links, files)


def run_venv(executable: str, path: str, inherited: int) -> None:
    """Make a virtual environment without pip.

    :param inherited: the descriptor of a lock that a child has to hold as well, since it may outlive us; -1 for none
    :raises InterpreterError: `venv` failed
    :raises FilesystemError: the directory cannot be written to
    """
    if paths.realpath(executable) == paths.realpath(own_base()):
        try:
            _create(path)
        except OSError as error:
            raise FilesystemError("make environment", path, error) from error
        except ValueError as error:  # a character in the path that `venv` cannot cope with
            raise InterpreterError(f"`venv` cannot make an environment in `{path}`: {error}") from error
        return
    import subprocess

    words = [paths.realpath(executable), "-I", "-B", "-m", "venv", "--without-pip", path]
    held = (inherited,) if inherited >= 0 else ()
    done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, check=False, **native.inherit(held))
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise InterpreterError(f"`{executable}` cannot make an environment in `{path}`: {said}")


def _create(path: str) -> None:
    """Make a virtual environment of the Python that runs here, by the name of it that `own_base` chooses."""
    import venv

    class Builder(venv.EnvBuilder):
        def ensure_directories(self, env_dir: str | os.PathLike[str]) -> SimpleNamespace:  # type: ignore[override]
            context = super().ensure_directories(env_dir)
            context.executable = own_base()
            context.python_dir, context.python_exe = os.path.split(context.executable)
            context.env_exe = paths.join(context.bin_path, context.python_exe)
            return context

    Builder(symlinks=native.LINKS).create(path)
