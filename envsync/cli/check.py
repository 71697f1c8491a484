"""`check`: verify every installed file, and with `--repair` restore what is missing or changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from envsync.checking import repair
from envsync.cli.asked import answer, environment_meant
from envsync.cli.display import Display
from envsync.launch import options
from envsync.launch.messages import show_json

EXIT_UNSOUND = 1


def check(settings: options.Settings) -> int:
    """Verify the environment and say what is wrong with it; 1 if there is anything, after a repair as before."""
    environment, asked = environment_meant(settings)
    given = asked.settings if asked is not None else {**options.from_variables(os.environ), **settings}
    request_ = repair.request_of(given, environment.path)
    with Display(request_) as display:
        if settings.get("repair"):
            checked = repair.check_and_repair(request_, asked, environment, display)
        else:
            checked = repair.check(request_, environment, display)
    if settings.get("json"):
        show_json(checked.as_json())
    elif not settings.get("quiet"):
        answer(_describe(environment.path, checked), settings, options.CHECK)
    return 0 if checked.is_sound else EXIT_UNSOUND


def _describe(env: str, checked: repair.Checked) -> Iterator[str]:
    """Say in lines for people what a check found and what a repair did."""
    found = checked.found
    for finding in found.findings:
        whose = f" ({finding.distribution})" if finding.distribution else ""
        yield f"{finding.kind}: `{finding.path}`{whose}{f': {finding.detail}' if finding.detail else ''}"
    for name in checked.repaired:
        yield f"installed anew: {name}"
    for note in checked.notes:
        yield f"note: {note}"
    if checked.left is not None:
        for finding in checked.left.findings:
            if finding.kind != "unowned":
                yield f"still {finding.kind}: `{finding.path}`"
    now = checked.left or found
    verdict = "sound" if checked.is_sound else "damaged; `envsync check --repair` restores what envsync installed"
    if checked.left is not None and not checked.is_sound:
        verdict = "still damaged"
    yield f"`{env}`: {now.distributions} distributions, {now.files} files, {now.bytes / 1e6:.1f} MB: {verdict}"
