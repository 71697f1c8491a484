"""Where a wheel may put its files: the schemes of its .data directory, others' files, and code that runs by itself."""

from __future__ import annotations

import sys

from tests.hostile.cases import DATA, ENTRY_POINTS, KEEPS, NAME, SITE, Case, Content, coming_twice, wheel

SCHEMES = ("purelib", "platlib", "headers", "scripts", "data")
LIB = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
DEEP = f"data/{LIB}/site-packages"
"""Site-packages by way of the data scheme."""
DEEP64 = DEEP.replace("lib", "lib64", 1)


def cases() -> list[Case]:
    """Return the cases."""
    return [*_schemes(), *_environment(), *_others(), *_code()]


def _schemes() -> list[Case]:
    out = "a file name leads out of the wheel: .*"
    unknown = f"`{DATA}/.*` belongs to a scheme that does not exist"
    nowhere = f"`{DATA}/.*` is in the .data directory but in no scheme"
    every = {"purelib/p.py": "", "platlib/q.py": "", "headers/h.h": "", "scripts/s": "#!/bin/sh\n", "data/share/d": ""}
    header = f"include/site/{LIB.partition('/')[2]}/{NAME}/h.h"
    return [
        *(
            Case(f"data-{scheme}-dots", "No scheme leads out.", wheel(data={f"{scheme}/../../evil": ""}), refused=out)
            for scheme in SCHEMES
        ),
        *(
            Case(
                f"data-{scheme}-absolute",
                "No scheme leads to the root.",
                wheel(data={f"{scheme}//tmp/envsync-hostile/evil": ""}),
                refused="a file name has an empty component: .*",
            )
            for scheme in SCHEMES
        ),
        Case("data-dots", "There is no scheme of two dots.", wheel(data={"../evil": ""}), refused=out),
        Case("data-data-dots-last", "Nor one below.", wheel(data={"data/..": ""}), refused=out),
        *(
            Case(f"data-unknown-{name}", "There are five.", wheel(data={f"{name}/x": ""}), refused=unknown)
            for name in ("lib", "Scripts", "stdlib", "purelib ", "prefix")
        ),
        Case("data-in-none", "A file is in a scheme.", wheel(data={"x": ""}), refused=nowhere),
        Case("data-scheme-a-file", "A scheme is no file.", wheel(data={"purelib": ""}), refused=nowhere),
        Case(
            "data-all",
            "Each scheme has its place.",
            wheel(data=every),
            files=(f"{SITE}/p.py", f"{SITE}/q.py", header, "bin/s", "share/d"),
        ),
        Case(
            "data-lib64",
            "`lib64` is a link to `lib`.",
            wheel(data={"data/lib64/pkgconfig/x.pc": ""}),
            files=("lib/pkgconfig/x.pc",),
        ),
        coming_twice(
            "data-lib64-and-lib",
            "So that one file may come twice.",
            "data/lib/x",
            data={"data/lib64/x": "1", "data/lib/x": "2"},
        ),
        coming_twice(
            "data-and-root",
            "A file comes once, by whichever way.",
            f"library/{NAME}/__init__.py",
            data={f"platlib/{NAME}/__init__.py": "evil"},
        ),
        coming_twice(
            "data-data-and-root",
            "By the data scheme, too.",
            f"library/{NAME}/__init__.py",
            data={f"{DEEP}/{NAME}/__init__.py": "evil"},
        ),
        coming_twice(
            "data-data-and-scripts", "Scripts, too.", "scripts/tool", data={"scripts/tool": "1", "data/bin/tool": "2"}
        ),
        coming_twice(
            "data-data-and-entry-point",
            "And entry points.",
            "scripts/tool",
            data={"data/bin/tool": "2"},
            entry_points=f"[console_scripts]\ntool = {NAME}:main\n",
        ),
        Case(
            "data-scripts-and-entry-point",
            "An entry point replaces the script of its name.",
            wheel(data={"scripts/tool": "evil"}, entry_points=f"[console_scripts]\ntool = {NAME}:main\n"),
            files=("bin/tool", ENTRY_POINTS),
        ),
    ]


def _environment() -> list[Case]:
    by_data = [
        ".lock", ".LOCK", ".envsync/stamp", ".envsync/x", ".EnvSync/stamp", "pyvenv.cfg", ".gitignore", "CACHEDIR.TAG",
        "bin", "lib", "lib64", "include", LIB, f"{LIB}/site-packages",
    ]  # fmt: skip
    scripts = [
        "python",
        "python3",
        f"python{LIB[10:]}",
        "Python",
        "python/x",
        "activate",
        "activate.fish",
        "Activate.ps1",
    ]
    return [
        *(
            Case(
                f"environment-{path.strip('.').replace('/', '-')}" + ("-shouted" if path != path.lower() else ""),
                "The environment is not the wheel's.",
                wheel(data={f"data/{path}": "evil"}),
                refused=KEEPS.format(path),
            )
            for path in by_data
        ),
        *(
            Case(
                f"environment-{how.replace('/', '-')}-{name.replace('/', '-')}",
                "Nor are its Python and what activates it.",
                wheel(data={f"{how}/{name}": "#!/bin/sh\n"}),
                refused=KEEPS.format(name),
            )
            for how in ("scripts", "data/bin")
            for name in scripts
        ),
        Case(
            "environment-shouted",
            "What is `bin` on some filesystems is `bin`.",
            wheel(data={"data/BIN/python": "#!/bin/sh\n"}),
            refused=KEEPS.format("python"),
        ),
        *(
            Case(
                f"environment-stage-{how.replace('/', '-')}",
                "What envsync keeps in site-packages is not, either.",
                wheel(data={f"{how}/.envsync/x": ""}),
                refused=KEEPS.format(".envsync/x"),
            )
            for how in ("purelib", "platlib", DEEP, DEEP64, DEEP.replace("lib", "Lib", 1))
        ),
        Case(
            "environment-stage-root",
            "By whichever way.",
            wheel({".envsync/x": ""}),
            refused=KEEPS.format(".envsync/x"),
        ),
        Case(
            "environment-stage-below",
            "The name is reserved everywhere.",
            wheel({f"{NAME}/.envsync/x": ""}),
            refused=KEEPS.format(f"{NAME}/.envsync/x"),
        ),
        Case("environment-lock-of-nobody", "`.lock` is a name.", wheel({".lock": ""}), files=(f"{SITE}/.lock",)),
    ]  # fmt: skip


def _others() -> list[Case]:
    several = "it has several .dist-info directories: .*"
    compiled = f"neighbour/__pycache__/__init__.cpython-{LIB[10:].replace('.', '')}.pyc"
    differ = "hostile and neighbour have different contents for `.*`: that of neighbour was installed"
    return [
        Case(
            "others-module",
            "Of two who have a file, the last by name provides it, and that is said.",
            wheel({"neighbour/__init__.py": "import evil\n"}),
            files=(f"{SITE}/neighbour/__init__.py",),
            note=differ,
            verifies=False,
        ),
        Case(
            "others-script",
            "The same of scripts.",
            wheel(entry_points=f"[console_scripts]\nneighbour = {NAME}:main\n"),
            files=("bin/neighbour", ENTRY_POINTS),
            note=differ,
            verifies=False,
        ),
        Case(
            "others-bytecode",
            "Bytecode is left out: nobody has compared it with its source.",
            wheel({compiled: "evil", "__pycache__/os.pyc": "evil"}),
            pip=(f"{SITE}/{compiled}", f"{SITE}/__pycache__/os.pyc"),
        ),
        Case(
            "others-bytecode-by-data",
            "By whichever way it comes.",
            wheel(data={f"{DEEP}/{compiled}": "evil", "scripts/__pycache__/x.pyc": "evil"}),
            pip=(f"{SITE}/{compiled}", "bin/__pycache__/x.pyc"),
        ),
        *(
            Case(
                f"others-info-{how.replace('/', '-')}",
                "Nobody brings another's metadata.",
                wheel(data={f"{how}/neighbour-1.1.dist-info/METADATA": "evil"}),
                refused=several,
            )
            for how in ("purelib", "platlib", DEEP, DEEP64, "data/lib/python3.99/site-packages")
        ),
        Case(
            "others-info-shouted",
            "importlib.metadata does not tell case apart.",
            wheel(data={"purelib/ghost-1.0.DIST-INFO/METADATA": "evil"}),
            refused=several,
        ),
        Case(
            "others-egg-info",
            "What setuptools once wrote means nothing here.",
            wheel({"ghost.egg-info/PKG-INFO": "Metadata-Version: 1.0\nName: ghost\nVersion: 1.0\n"}),
            files=(f"{SITE}/ghost.egg-info/PKG-INFO",),
        ),
    ]


def _code() -> list[Case]:
    paths = "./elsewhere\n/tmp/envsync-hostile\n"
    code: dict[str, tuple[str, str, Content]] = {
        "pth": ("A .pth file adds to sys.path.", f"{NAME}.pth", paths),
        "pth-import": (
            "Or runs code whenever Python starts.",
            f"{NAME}.pth",
            "import os; os.environ['HOSTILE'] = '1'\n",
        ),
        "pth-of-another": ("Under whichever name.", "distutils-precedence.pth", paths),
        "pth-in-a-package": ("Below site-packages it is a file.", f"{NAME}/x.pth", paths),
        "sitecustomize": ("Python imports it when it starts.", "sitecustomize.py", "x = 1\n"),
        "usercustomize": ("And this.", "usercustomize.py", "x = 1\n"),
        "standard-library": ("The standard library comes first.", "os.py", "raise SystemExit\n"),
        "pip": ("A module may be called like pip's.", "pip/__init__.py", ""),
        "bytecode-without-source": ("It is a module like any other.", f"{NAME}/evil.pyc", "evil"),
        "native": ("So is this.", f"{NAME}/evil.so", b"\x7fELF"),
    }
    return [
        *(
            Case(f"code-{name}", claim, wheel({path: text}), files=(f"{SITE}/{path}",))
            for name, (claim, path, text) in code.items()
        ),
        *(
            Case(
                f"code-pth-by-{how.partition('/')[0]}{'-deep' * ('/' in how)}",
                "By whichever way it comes.",
                wheel(data={f"{how}/{NAME}.pth": paths}),
                files=(f"{SITE}/{NAME}.pth",),
            )
            for how in ("purelib", "platlib", DEEP)
        ),
        Case(
            "code-elsewhere",
            "Beside the standard library of an environment there is nothing that is imported.",
            wheel(data={f"data/{LIB}/os.py": "raise SystemExit\n"}),
            files=(f"{LIB}/os.py",),
        ),
    ]
