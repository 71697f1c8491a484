"""The options of `envsync shim`: apart from all others, for each launch loads those, and would pay for these."""

from __future__ import annotations

from envsync.launch.options import RUN, TEXT, Option

MAKE = (
    *RUN,
    Option("jupyter", TEXT, "Instead of a file, a kernel of Jupyter of this name.", metavar="NAME"),
    Option("display-name", TEXT, "What Jupyter calls the kernel. Default: its name.", metavar="TEXT"),
)
