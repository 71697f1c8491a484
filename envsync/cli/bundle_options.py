"""The options of `envsync bundle`: apart from all others, for each launch loads those, and would pay for these."""

from __future__ import annotations

from envsync.cli.cache_options import ADD
from envsync.launch.options import FLAG, LIST, SECONDS, TEXT, Option

MAKE = (
    Option("to", TEXT, "The directory of the bundle; it is made, or brought up to date.", metavar="DIR"),
    *(option for option in ADD if option.key not in ("python", "no_editable", "json")),
    Option(
        "python", LIST, "A Python that it is for. Default: the project's, or the one that runs envsync.", metavar="SPEC"
    ),
    Option(
        "platform",
        LIST,
        "A platform that it is for, as manylinux_2_28_x86_64. Default: this host.",
        metavar="PLATFORM",
    ),
    Option("dry-run", FLAG, "Say what would be in it, and make nothing."),
    Option("json", FLAG, "Print the outcome as one JSON object."),
)
VERIFY = (
    Option("json", FLAG, "Print what was found as one JSON object."),
    Option("quiet", FLAG, "Say nothing but errors.", short="q"),
)
PRUNE = (
    Option(
        "older-than",
        TEXT,
        "Remove what was replaced, and not asked for since, so long ago. Default: 7d.",
        metavar="AGE",
    ),
    Option("timeout", SECONDS, "How long to wait for who adds to it. Default: no limit.", metavar="SECONDS"),
    Option("dry-run", FLAG, "Say what would go, remove nothing."),
    *VERIFY,
)
