"""The options of `envsync env`: apart from all others, for each launch loads those, and would pay for these."""

from __future__ import annotations

from envsync.launch.options import COMMON, FLAG, REQUEST, SECONDS, TEXT, Option

_SHOWN = (
    *(option for option in REQUEST if option.key in ("project", "directory", "no_config")),
    Option("json", FLAG, "Print the outcome as one JSON object."),
    Option("no-size", FLAG, "Do not look how much room they take, which is a look at each file."),
)
LIST = (
    *_SHOWN,
    Option("verbose", FLAG, "Say of each why it is not current, and why it would be kept.", short="v"),
)
SHOW = _SHOWN
REMOVE = (
    *_SHOWN[:-1],
    Option("dry-run", FLAG, "Say what would go, remove nothing."),
    Option("yes", FLAG, "Do not ask.", short="y"),
    Option("timeout", SECONDS, "How long to wait for syncs of them. Default: not at all.", metavar="SECONDS"),
    *COMMON,
)
PRUNE = (
    *REMOVE,
    Option("older-than", TEXT, "Only what was not used for so long, as in 30d, 12h or 90m.", metavar="AGE"),
    Option("keep", TEXT, "Not the N that were used last.", metavar="N"),
)
"""An age is asked for on the command line alone: elsewhere `older-than` is meant for the cache."""
