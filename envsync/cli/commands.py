"""What `sync`, `status`, `check` and `doctor` do and print. Its arguments come from the fast parser or from click."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from envsync.cli.run import shown
from envsync.errors import LockFileError, UsageError
from envsync.launch import fast_lane, options, request
from envsync.launch.environment import Environment
from envsync.launch.messages import say, show, show_json
from envsync.library import syncing
from envsync.waiting.outcome import WOULD_SYNC

EXIT_NOT_CURRENT = 1
EXIT_UNSOUND = 1
EXIT_UNSAFE = 1


def sync(settings: options.Settings) -> int:
    """Make the environment current, and say what changed. Stdout belongs to `--json`."""
    asked = request.resolve(settings, os.environ)
    dry_run = asked.flag("dry_run")
    result = _preview(asked) if dry_run else syncing.run(asked, show=shown(asked))
    if asked.flag("json"):
        value = result._asdict()
        del value["notes"]
        show_json({**value, "dry_run": dry_run})
    elif not asked.flag("quiet"):
        _say(result)
    return 0


def status(settings: options.Settings) -> int:
    """Say what is known of the environment. `--exit-code`: 1 if it is not current."""
    from envsync.library.status import look

    environment, asked = _named(settings)
    found = look(environment, asked)
    if settings.get("json"):
        show_json(found.as_json())
    else:
        from envsync.cli.display import describe_status

        _print(describe_status(found), settings, options.STATUS)
    return EXIT_NOT_CURRENT if settings.get("exit_code") and found.current is not True else 0


def check(settings: options.Settings) -> int:
    """Verify the environment and say what is wrong with it; 1 if there is anything, after a repair as before."""
    from envsync.checking import repair
    from envsync.cli.display import Display, describe_check

    environment, asked = _named(settings)
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
        _print(describe_check(environment.path, checked), settings, options.CHECK)
    return 0 if checked.is_sound else EXIT_UNSOUND


def doctor(settings: options.Settings) -> int:
    """Say what the filesystem of the environment does, and what follows; 1 if syncing there would be unsafe."""
    from envsync.doctor import Finding, Place, examine, is_safe, judge
    from envsync.doctor.judge import LIMITED
    from envsync.leading.sync_cache import NO_HOME, cache_directory
    from envsync.store.store import NOWHERE

    asked = _whatever(settings)
    template = asked.env_template
    env = template.partition("{digest}")[0].rpartition("/")[0] if "{digest}" in template else template
    place = Place(os.path.abspath(env or "."), cache_directory(asked))
    facts = examine(place)
    blind = "{digest}" in template or asked.text("busy") == "ignore"
    findings = judge(facts, blind=blind, fallback=asked.text("cache_fallback") or "")
    if place.cache == NOWHERE:
        text = f"there is no cache, since {NO_HOME}: what is needed is fetched for each environment alone"
        findings.append(Finding(LIMITED, "cache", text, "name one: `envsync sync --cache-dir /var/tmp/envsync`"))
    if settings.get("json"):
        found = [finding._asdict() for finding in findings]
        show_json({"env": template, "safe": is_safe(findings), "findings": found, "facts": facts.as_json()})
    else:
        from envsync.cli.display import describe_facts

        _print(describe_facts(template, facts, findings), settings, options.DOCTOR)
    return 0 if is_safe(findings) else EXIT_UNSAFE


def _whatever(settings: options.Settings) -> request.Request:
    """Return the request that is meant; without a lock file, one that stands for none."""
    try:
        return request.resolve(settings, os.environ)
    except (UsageError, LockFileError):
        if "lock" in settings:
            raise
    known = {**options.from_variables(os.environ), **settings}
    env = known.get("env")
    return request.Request(known, "", "", env.rstrip("/") or "/" if isinstance(env, str) else ".venv")


def _print(lines: Iterable[str], settings: options.Settings, table: Sequence[options.Option]) -> None:
    """Print lines; what they hint at gets the options of this command line."""
    from envsync.cli.tell import completed_by

    for line in lines:
        show(completed_by(line, settings, table))


def _named(settings: options.Settings) -> tuple[Environment, request.Request | None]:
    """Find out which environment is meant, and what for; without a lock file, that is `--env` and nothing else."""
    from envsync.library.reach import named_by_digest

    try:
        asked = request.resolve(settings, os.environ)
    except (UsageError, LockFileError):
        env = settings.get("env") or os.environ.get("ENVSYNC_ENV")
        if "lock" in settings or not isinstance(env, str) or "{digest}" in env or not env.strip("/"):
            raise
        return Environment(env.rstrip("/")), None
    return fast_lane.environment_of(asked) or named_by_digest(asked), asked


def _preview(asked: request.Request) -> syncing.SyncResult:
    from envsync.cli.display import Display
    from envsync.leading.goal import environment_by_digest
    from envsync.leading.preview import preview
    from envsync.leading.sync_cache import cache_directory

    environment = fast_lane.environment_of(asked) or environment_by_digest(asked, cache_directory(asked))
    with Display(asked) as display:
        done = preview(asked, environment, display)
    return syncing.SyncResult(done.outcome, done.env, done.digest, done.installed, done.removed, done.seconds)


def _say(result: syncing.SyncResult) -> None:
    if result.outcome == WOULD_SYNC:
        for name in result.removed:
            say(f"would remove {name}")
        for name in result.installed:
            say(f"would install {name}")
    elif result.outcome == "current":
        say(f"`{result.env}` is current")
    elif result.outcome == "waited":
        say(f"`{result.env}` is current: another process synced it within {result.seconds:.1f} s")
