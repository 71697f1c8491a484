"""The options of `envsync cache add`: apart from all others, for each launch loads those, and would pay for these."""

from __future__ import annotations

from envsync.launch.options import COMMON, FLAG, HOW, REQUEST, WAIT, Option

_OF_AN_ENVIRONMENT = ("env", "active", "inexact", "link_mode", "cache_fallback")
ADD = (
    *(option for option in REQUEST if option.key not in _OF_AN_ENVIRONMENT),
    *(option for option in (*HOW, *WAIT) if option.key in ("durable", "timeout")),
    *COMMON,
    Option("json", FLAG, "Print the outcome as one JSON object."),
)
