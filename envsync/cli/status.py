"""`status`: say what is known of the environment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from envsync.cli.asked import answer, environment_meant
from envsync.installed.plan import told_unverified
from envsync.launch import options
from envsync.launch.messages import show_json
from envsync.library.status import Job, Occupant, SourceTree, Status, Syncer, look
from envsync.locks import named
from envsync.system import processes
from envsync.waiting.narrator import SILENCE_SECONDS
from envsync.waiting.shortening import volume

EXIT_NOT_CURRENT = 1


def status(settings: options.Settings) -> int:
    """Say what is known of the environment. `--exit-code`: 1 if it is not current."""
    environment, asked = environment_meant(settings)
    found = look(environment, asked)
    if settings.get("json"):
        show_json(found.as_json())
    else:
        answer(_describe(found), settings, options.STATUS)
    return EXIT_NOT_CURRENT if settings.get("exit_code") and found.current is not True else 0


def _describe(status: Status) -> Iterator[str]:
    """Say in lines for people what is known of an environment."""
    now = time.time()
    if status.current is None:
        yield f"`{status.env}` is as it was synced; name a lock file to know whether it is what that asks for"
    elif status.current:
        yield f"`{status.env}` is current"
    else:
        yield f"`{status.env}` is not current: {status.reason}"
    if status.leader is not None:
        yield f"syncing: {_leader(status.leader, now)}"
    for holder in status.holders:
        yield f"locked by: pid {holder.pid} (`{holder.command}`)"
    for waiter in status.waiters:
        where = f"pid {waiter.pid} on {waiter.host}{f' of {waiter.job}' if waiter.job else ''}"
        yield f"waiting: {where} for {_ago(waiter.since, now)} (`{waiter.command}`)"
    yield from running(status.commands, status.jobs, now)
    if status.failure is not None:
        failure = status.failure
        yield f"last failure: pid {failure.pid} on {failure.host}, {_ago(failure.time, now)} ago: {failure.message}"
    for path in status.leftovers:
        yield f"left over by a dead leader, for the next sync to see to: `{path}`"
    if status.unverified:
        yield told_unverified(status.unverified)
    yield from map(_tree, status.trees)
    if status.pythonpath:
        yield (
            f"PYTHONPATH is set: `run` lets modules in `{status.pythonpath}` come before those of the environment, "
            "`run --isolated` does not"
        )


def running(commands: Iterable[Occupant], jobs: Iterable[Job], now: float) -> Iterator[str]:
    """Say in lines who runs in an environment: here, and by what was left elsewhere."""
    for command in commands:
        yield f"running here: {named.of_here(named.Local(*command))}"
    unproved = [named.Holder(*job[:8]) for job in jobs if not job.proved]
    for found in named.jobs_of(unproved):
        user = f", of user {found[0].user}" if found[0].user != processes.user() else ""
        since = _ago(min(each.since for each in found), now)
        yield f"may still run: {named.described(found)}, begun {since} ago{user}{named.remedy(found)}"


def _tree(tree: SourceTree) -> str:
    what = "linked to" if tree.editable else "built of"
    if tree.changed:
        return f"{what} `{tree.path}`, which has changed since: `run` takes no notice, `envsync sync` does"
    return f"{what} `{tree.path}`: `run` looks at the files that say how it is built, `sync` at the rest of what counts"


def _leader(leader: Syncer, now: float) -> str:
    counted = f" {leader.done} of {leader.total}" if leader.total else ""
    if leader.bytes_done:
        counted += f", {volume(leader.bytes_done, leader.bytes_total)}"
    counted += f", {leader.detail}" if leader.detail else ""
    stopped = "; it is stopped" if leader.stopped else ""
    silent = f"; no sign of life for {leader.silent:.0f} s" if leader.silent >= SILENCE_SECONDS else ""
    job = f" of {leader.job}" if leader.job else ""
    end = f"; `{leader.end}` ends its job" if leader.end else ""
    return (
        f"pid {leader.pid} on {leader.host}{job} for {_ago(leader.since, now)}: {leader.phase}{counted} "
        f"(`{leader.command}`){stopped}{silent}{end}"
    )


def _ago(since: float, now: float) -> str:
    seconds = max(0.0, now - since)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
