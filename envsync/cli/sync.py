"""`sync`: make the environment current, and say what changed. Its options come from the fast parser or from click."""

from __future__ import annotations

import os

from envsync.cli.run import shown
from envsync.installed.ledger import load_ledger
from envsync.launch import Environment, fast_lane, finding, options, request
from envsync.launch.messages import say, show_json
from envsync.leading.result import WOULD_SYNC, SyncResult
from envsync.library import syncing
from envsync.library.reach import named_by_digest

SHOWN = ("outcome", "env", "digest", "installed", "removed", "seconds")
"""What `--json` has of a result."""


def sync(settings: options.Settings) -> int:
    """Make the environment current, and say what changed. Stdout belongs to `--json`."""
    finding.go_to(settings, os.environ)
    asked = request.resolve(settings, os.environ)
    dry_run = asked.flag("dry_run")
    result = _preview(asked) if dry_run else syncing.run(asked, show=shown(asked))
    if asked.flag("json"):
        unverified = load_ledger(Environment(result.env)).unverified
        shown_values = {name: getattr(result, name) for name in SHOWN}
        show_json({**shown_values, "unverified": unverified, "dry_run": dry_run})
    elif not asked.flag("quiet"):
        _say(result)
    return 0


def _preview(asked: request.Request) -> SyncResult:
    from envsync.cli.display import Display
    from envsync.leading.preview import preview

    environment = fast_lane.environment_of(asked) or named_by_digest(asked)
    with Display(asked) as display:
        return preview(asked, environment, display)


def _say(result: SyncResult) -> None:
    if result.outcome == WOULD_SYNC:
        for name in result.removed:
            say(f"would remove {name}")
        for name in result.installed:
            say(f"would install {name}")
    elif result.outcome == "current":
        say(f"`{result.env}` is current")
    elif result.outcome == "waited":
        say(f"`{result.env}` is current: another process synced it within {result.seconds:.1f} s")
