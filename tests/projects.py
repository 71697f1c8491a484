"""Make source trees for tests: projects that build without the network, their archives, and git repositories of them.

    tree = make_project(tmp_path / "demo", "demo", "1.0", log=tmp_path / "log")
    sdist = make_sdist(tree)
    commit = make_repository(tree)
    ...
    assert built(tmp_path / "log") == ["build_wheel demo"]

The same arguments give the same bytes, and the same commit.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BACKEND = Path(__file__).parent / "in_tree_backend.py"
TIME = 1577836800
"""Of all that is made, in seconds since 1970."""
Place = str | os.PathLike[str]


def make_project(
    directory: Place,
    name: str = "demo",
    version: str = "1.0",
    *,
    files: Mapping[str, str] | None = None,
    requires: Iterable[str] = (),
    scripts: Mapping[str, str] | None = None,
    backend: str = "in_tree_backend",
    pyproject: str = "",
    log: Place = "",
    fails: str = "",
    wait_for: Place = "",
    daemon: Place = "",
    editable: bool = True,
    native: bool = False,
    build_requires: Iterable[str] = (),
    hook_requires: Iterable[str] = (),
    gives: Mapping[str, str] | None = None,
) -> Path:
    """Write the source tree of a project whose backend stands in it, and return its directory.

    :param directory: made if it is not there
    :param files: by path in the tree; by default a package below `src` with an `__init__.py` that has the version
    :param requires: what the project depends on, written into its pyproject.toml as all else is
    :param scripts: console scripts
    :param backend: what pyproject.toml names; empty: it has no table `build-system` at all
    :param pyproject: more text for the end of pyproject.toml
    :param log: a file that gets a line for each hook that runs; `ran` and `built` read it
    :param fails: what `build_wheel` and `build_editable` say before they fail
    :param wait_for: a file that both wait for once they are in the log
    :param daemon: a file that gets the id of a process that both leave running
    :param editable: it has the hooks for editables (PEP 660)
    :param native: its wheels are for the Python and the platform that they are built with
    :param build_requires: `build-system.requires`
    :param hook_requires: what `get_requires_for_build_*` give
    :param gives: `name` and `version` of the wheel, if they are others than the tree says
    """
    tree = Path(directory)
    (tree / "backend").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(BACKEND, tree / "backend" / "in_tree_backend.py")
    plan = {
        "log": os.fspath(log),
        "fails": fails,
        "wait_for": os.fspath(wait_for),
        "daemon": os.fspath(daemon),
        "editable": editable,
        "native": native,
        "hook_requires": list(hook_requires),
        "gives": dict(gives or {}),
    }
    (tree / ".gitignore").write_text("__pycache__/\n")
    (tree / "backend" / "plan.json").write_text(json.dumps(plan, indent=1))
    table = f'[build-system]\nrequires = {json.dumps(list(build_requires))}\nbuild-backend = "{backend}"\n'
    lines = [table + 'backend-path = ["backend"]\n'] if backend else []
    lines += [f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {json.dumps(list(requires))}\n']
    if scripts:
        lines += ["[project.scripts]", *(f'{key} = "{value}"' for key, value in scripts.items()), ""]
    (tree / "pyproject.toml").write_text("\n".join([*lines, pyproject]))
    module = name.replace("-", "_").replace(".", "_")
    for path, text in (
        {f"src/{module}/__init__.py": f'__version__ = "{version}"\n'} if files is None else files
    ).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    return tree


def make_sdist(project: Place, directory: Place | None = None, *, filename: str = "", top: str = "") -> Path:
    """Pack a project into a source distribution, and return its path.

    :param directory: where it is put; by default beside the tree
    :param filename: another name than NAME-VERSION.tar.gz
    :param top: another name for the one directory in it than NAME-VERSION
    """
    tree = Path(project)
    name, version = _named(tree)
    stem = f"{name.replace('-', '_')}-{version}"
    target = Path(directory or tree.parent) / (filename or f"{stem}.tar.gz")
    members = {path.relative_to(tree).as_posix(): path.read_bytes() for path in sorted(_files(tree))}
    members["PKG-INFO"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in members.items():
            member = tarfile.TarInfo(f"{top or stem}/{path}")
            member.size, member.mtime, member.mode = len(content), TIME, 0o644
            archive.addfile(member, io.BytesIO(content))
    with open(target, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=TIME) as stream:
        stream.write(packed.getvalue())
    return target


def make_repository(directory: Place, message: str = "Begin") -> str:
    """Commit all that is in a directory, in a git repository that is made if there is none; return the commit."""
    if not os.path.isdir(os.path.join(directory, ".git")):
        git(directory, "init", "--quiet", "--initial-branch", "main")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", message)
    return git(directory, "rev-parse", "HEAD")


def git(directory: Place, *words: str) -> str:
    """Run git in a directory, with nobody's settings and at a fixed time, and return what it says."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _WHO.items()}
    nobodys = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *words], cwd=directory, env={**environ, **nobodys, **who}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_WHO = {"NAME": "tests", "EMAIL": "tests@example.invalid", "DATE": f"{TIME} +0000"}


def ran(log: Place) -> list[dict[str, Any]]:
    """Return what the log says of each hook: hook, name, config, tree, pid, python, variables."""
    if not os.path.exists(log):
        return []
    # The last line may just be written.
    lines = Path(log).read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def built(log: Place) -> list[str]:
    """Return what was built, as in `build_wheel demo`, in order of its beginning."""
    return [f"{each['hook']} {each['name']}" for each in ran(log) if each["hook"].startswith("build_")]


def _named(tree: Path) -> tuple[str, str]:
    import tomllib

    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    return project["name"], project["version"]


def _files(tree: Path) -> Iterable[Path]:
    for path in tree.rglob("*"):
        parts = path.relative_to(tree).parts
        if path.is_file() and ".git" not in parts and "__pycache__" not in parts:
            yield path
