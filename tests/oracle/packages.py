"""An index of packages made up for the purpose: extras, markers, several versions, wheels for one Python."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.wheels import build_wheel

WHEELS: dict[tuple[str, str], tuple[str, ...]] = {
    ("leaf", "1.0"): (),
    ("leaf", "2.0"): (),
    ("mid", "1.0"): ("leaf",),
    ("both", "1.0"): ("leaf", "mid"),
    ("tool", "1.0"): (),
    ("winonly", "1.0"): (),
    ("opt", "1.0"): ("mid ; extra == 'm'", "cpuonly ; extra == 'all'", "winonly ; extra == 'all'"),
    ("marked", "1.0"): (
        "leaf ; python_version < '3.12'",
        "tool ; python_version >= '3.12'",
        "winonly ; os_name == 'nt'",
    ),
    ("old-pin", "1.0"): ("leaf<2",),
    ("Odd.Name", "1.0"): ("mid",),
    ("deep", "1.0"): ("opt[m]", "marked ; platform_machine != 'none'"),
}
ONLY_FOR = {
    ("cpuonly", "1.0"): ("cp311-cp311-manylinux_2_17_x86_64", "cp312-cp312-manylinux_2_17_x86_64", "py3-none-any")
}


def make_index(directory: Path) -> None:
    """Write an index: `simple/NAME/index.html` and `files/`."""
    files = directory / "files"
    files.mkdir(parents=True)
    paths = [
        build_wheel(files, name, version, requires=requires, metadata=_metadata(name, version, requires))
        for (name, version), requires in WHEELS.items()
    ]
    paths += [build_wheel(files, name, version, tag=tag) for (name, version), tags in ONLY_FOR.items() for tag in tags]
    for path in map(Path, paths):
        name = path.name.split("-")[0].replace("_", "-").replace(".", "-").lower()
        page = directory / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with page.open("a") as file:
            file.write(f'<a href="../../files/{path.name}#sha256={digest}">{path.name}</a><br>\n')


def _metadata(name: str, version: str, requires: tuple[str, ...]) -> str:
    extras = sorted({text.partition("extra == '")[2][:-1] for text in requires if "extra == '" in text})
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Requires-Python: >=3.9"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    return "\n".join([*lines, *(f"Requires-Dist: {text}" for text in requires)]) + "\n"
