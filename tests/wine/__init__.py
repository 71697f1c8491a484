"""envsync on a real Windows Python under wine: processes, locks and files as Windows has them, as far as wine goes.

    WINE_PYTHON=DIR python -m pytest -m wine tests/wine

DIR has two programs: `wpy`, which runs a Windows CPython 3.11 or newer that has envsync's dependencies, and `wuv`,
which runs uv.exe. In both, `Z:` is this machine's root, and to kill a process of theirs is TerminateProcess.

The unit tests run there, too, from this directory: `DIR/wpy -m pytest -p no:xdist tests/unit/system`, a room at a time;
tests/unit/posix_only.py says which of them are POSIX's own.

What wine does not show proves nothing about Windows: locks that keep readers out, names that are about to go, virus
scanners, directories that cannot be renamed while a file in them is open (docs/systems.md).
"""
