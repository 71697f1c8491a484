"""envsync as on macOS, as far as Linux can be made to look like it: real processes, locks and files.

    MAC_SUBTRACT=SCRIPT python -m pytest -m mac tests/mac

`SCRIPT --python PYTHON COMMAND...` becomes COMMAND, for which and for whose children /proc and /sys are empty, and in
each process of PYTHON `os`, `time`, `signal`, `select` and `fcntl` lack what they have on Linux alone, as
sched_getaffinity, copy_file_range and CLOCK_BOOTTIME. In these, envsync takes its module for macOS (`tests/darwin.py`);
a small library stands in for macOS's C library.

The unit tests run there, too: `SCRIPT --python PYTHON PYTHON -m pytest tests/unit/system`, a room at a time. Those that
look into /proc themselves say that they were skipped (`tests/needs.py`).

What fails here fails on a Mac. What passes may still fail there: its filesystems, its errors, and what else asks which
system it is, as Python does, are not here.
"""
