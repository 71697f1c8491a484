"""`doctor`: say what the filesystem of the environment can do, and what follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envsync.cli.asked import answer, request_meant
from envsync.doctor import Facts, Subject, Verdict, examine, is_safe, judge
from envsync.doctor.judge import LIMITED
from envsync.launch import options
from envsync.launch.messages import show_json
from envsync.launch.request import above_names, is_named_later
from envsync.leading.sync_cache import cache_directory
from envsync.store.store import NOWHERE
from envsync.system import native, paths

EXIT_UNSAFE = 1


def doctor(settings: options.Settings) -> int:
    """Say what the filesystem of the environment does, and what follows; 1 if syncing there would be unsafe."""
    asked = request_meant(settings)
    template = asked.env_template
    env = above_names(template).rstrip("/") if is_named_later(template) else template
    place = Subject(paths.abspath(env or "."), cache_directory(asked))
    facts = examine(place)
    blind = "{digest}" in template or asked.text("busy") == "ignore"
    findings = judge(facts, blind=blind, fallback=asked.text("cache_fallback") or "")
    if place.cache == NOWHERE:
        text = f"there is no cache, since {native.NO_HOME}: what is needed is fetched for each environment alone"
        findings.append(Verdict(LIMITED, "cache", text, "name one: `envsync sync --cache-dir /var/tmp/envsync`"))
    if settings.get("json"):
        found = [finding._asdict() for finding in findings]
        show_json({"env": template, "safe": is_safe(findings), "findings": found, "facts": facts.as_json()})
    else:
        answer(_describe(template, facts, findings), settings, options.DOCTOR)
    return 0 if is_safe(findings) else EXIT_UNSAFE


def _describe(env: str, facts: Facts, findings: Sequence[Verdict]) -> Iterator[str]:
    """Say in lines for people what a filesystem does, and what follows."""
    kind = f" ({facts.kind}{', shared between hosts' if facts.network else ''})" if facts.kind else ""
    yield f"tried in `{facts.directory}`{kind}"
    for finding in findings:
        yield f"{finding.level:8}{finding.subject}: {finding.text}"
        if finding.advice:
            yield f"{'':8}hint: {finding.advice}"
    worst = [finding for finding in findings if finding.level != "fine"]
    if any(finding.level == "unsafe" for finding in worst):
        yield f"`{env}`: not safe to sync here"
    else:
        yield f"`{env}`: safe to sync here" + (", with the limits above" if worst else "")
