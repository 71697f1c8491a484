"""What `sync` does and prints. Its arguments come from the fast parser or from click."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from envsync import fastlane, library, options, request
from envsync.coordination.messages import say

EXIT_USAGE = 2
EXIT_FAILURE = 125


def usage_status(arguments: Sequence[str]) -> int:
    """Return the exit status for a command line that makes no sense.

    `run` follows timeout(1) and `docker run`: whatever is wrong with us is 125, so that it is not the job's.
    """
    return EXIT_FAILURE if arguments and arguments[0] == "run" else EXIT_USAGE


def sync(settings: options.Settings) -> int:
    """Make the environment current, and say what changed. Stdout belongs to `--json`."""
    asked = request.resolve(settings, os.environ)
    dry_run = asked.flag("dry_run")
    result = _preview(asked) if dry_run else library.run(asked, None)
    if asked.flag("json"):
        value = result._asdict()
        del value["notes"]
        print(json.dumps(value))
    elif not asked.flag("quiet"):
        _say(result, dry_run=dry_run)
    return 0


def _preview(asked: request.Request) -> library.SyncResult:
    from envsync.coordination.goal import environment_by_digest
    from envsync.coordination.leader import cache_directory, preview
    from envsync.display import Display

    environment = fastlane.environment_of(asked) or environment_by_digest(asked, cache_directory(asked))
    with Display(asked) as display:
        done = preview(asked, environment, display)
    return library.SyncResult(done.outcome, done.env, done.digest, done.installed, done.removed, done.seconds)


def _say(result: library.SyncResult, *, dry_run: bool) -> None:
    if dry_run and result.outcome == "synced":
        for name in result.removed:
            say(f"would remove {name}")
        for name in result.installed:
            say(f"would install {name}")
    elif result.outcome == "current":
        say(f"`{result.env}` is current")
    elif result.outcome == "waited":
        say(f"`{result.env}` is current: another process synced it within {result.seconds:.1f} s")
