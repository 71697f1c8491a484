"""A build backend that stands in the tree that it builds: no requirements, no network, any Python since 3.9.

`tests.projects.make_project` puts it there, beside `plan.json`, which says how it is to behave. What it builds is what
the tree says at that moment, as with any backend; the same tree gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import time
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "plan.json"), encoding="utf-8") as _file:
    PLAN = json.load(_file)
_LINE = re.compile(r"""\s*["']?([\w.-]+)["']?\s*=\s*["']([^"']*)["']\s*""")


def get_requires_for_build_wheel(config_settings=None):
    _begin("get_requires_for_build_wheel", config_settings)
    return PLAN["hook_requires"]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    _begin("build_wheel", config_settings)
    return _build(wheel_directory, _sources())


if PLAN["editable"]:

    def get_requires_for_build_editable(config_settings=None):
        _begin("get_requires_for_build_editable", config_settings)
        return PLAN["hook_requires"]

    def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
        _begin("build_editable", config_settings)
        link = os.path.join(os.getcwd(), "src") + "\n"
        return _build(wheel_directory, {f"__editable__.{_project()['name']}.pth": link.encode()})


def _begin(hook, config):
    """Write into the log that a hook runs, and do what it is told to do before it builds."""
    if PLAN["log"]:
        said = {
            "hook": hook,
            "name": _project()["name"],
            "config": config or {},
            "tree": os.getcwd(),
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:2])),
            "variables": dict(os.environ),
        }
        line = (json.dumps(said) + "\n").encode()
        log = os.open(PLAN["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        assert os.write(log, line) == len(line)  # at once: others write there, too
        os.close(log)
    if not hook.startswith("build_"):
        return
    if PLAN["daemon"]:
        # In a session of its own, with all that may be inherited: as a compiler server or a credential helper does.
        code = "import time; time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, close_fds=False)
        with open(PLAN["daemon"], "w", encoding="utf-8") as file:
            file.write(str(child.pid))
        child.returncode = 0  # it outlives us on purpose, and is not to be warned of
    while PLAN["wait_for"] and not os.path.exists(PLAN["wait_for"]):
        time.sleep(0.01)
    if PLAN["fails"]:
        print(PLAN["fails"], flush=True)
        raise SystemExit(1)


def _project():
    """Read pyproject.toml as far as `make_project` writes it: Python 3.9 has no parser."""
    project = {"name": "", "version": "", "dependencies": [], "scripts": {}}
    section = ""
    with open("pyproject.toml", encoding="utf-8") as file:
        for line in file:
            match = _LINE.fullmatch(line.rstrip("\n"))
            if line.startswith("["):
                section = line.strip()
            elif match and section == "[project]":
                project[match[1]] = match[2]
            elif match and section == "[project.scripts]":
                project["scripts"][match[1]] = match[2]
            elif line.startswith("dependencies =") and section == "[project]":
                project["dependencies"] = json.loads(line.partition("=")[2])
    return project


def _sources():
    files = {}
    for directory, below, names in os.walk("src"):
        below[:] = sorted(name for name in below if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, "src").replace(os.sep, "/")] = file.read()
    return files


def _build(directory, files):
    """Write the wheel and return its file name."""
    project = {**_project(), **PLAN["gives"]}
    stem = "{}-{}".format(re.sub(r"[-_.]+", "_", project["name"]), project["version"])
    info = stem + ".dist-info"
    lines = ["Metadata-Version: 2.1", "Name: " + project["name"], "Version: " + project["version"]]
    lines += ["Requires-Dist: " + each for each in project["dependencies"]]
    files[info + "/METADATA"] = "\n".join([*lines, ""]).encode()
    tag = _native() if PLAN["native"] else "py3-none-any"
    pure = "false" if PLAN["native"] else "true"
    text = f"Wheel-Version: 1.0\nGenerator: in-tree\nRoot-Is-Purelib: {pure}\nTag: {tag}\n"
    files[info + "/WHEEL"] = text.encode()
    if project["scripts"]:
        scripts = "".join(f"{name} = {value}\n" for name, value in project["scripts"].items())
        files[info + "/entry_points.txt"] = ("[console_scripts]\n" + scripts).encode()
    rows = [_row(name, content) for name, content in files.items()]
    files[info + "/RECORD"] = "\n".join([*rows, info + "/RECORD,,", ""]).encode()
    filename = f"{stem}-{tag}.whl"
    with zipfile.ZipFile(os.path.join(directory, filename), "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            member.external_attr = 0o100644 << 16
            archive.writestr(member, content)
    return filename


def _row(name, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"


def _native():
    python = "cp{}{}".format(*sys.version_info[:2])
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    return f"{python}-{python}-{platform}"
