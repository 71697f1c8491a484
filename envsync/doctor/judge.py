"""What facts about a filesystem mean for envsync, in plain words. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import NamedTuple

from envsync.doctor.facts import CacheFacts, Facts, LockFacts, Names, Space, Times

FINE, SLOW, LIMITED, UNSAFE = "fine", "slow", "limited", "unsafe"
"""All is well; it takes longer; something is done in another way; envsync refuses, or ought not to be used there."""
SLOW_CALL_SECONDS = 0.001
COARSE_SECONDS = 0.5
LITTLE_BYTES = 500_000_000
FEW_INODES = 20_000
LATE_SECONDS = 0.2
OWN_ENVIRONMENTS = "use --env '.venvs/{digest}', or set ENVSYNC_BUSY=ignore to change environments beneath commands"


class Verdict(NamedTuple):
    """One thing that was found out, and what follows.

    :ivar level: FINE, SLOW, LIMITED or UNSAFE
    :ivar text: a sentence
    :ivar advice: what to do or to set; empty if there is nothing to be done
    """

    level: str
    subject: str
    text: str
    advice: str = ""


def is_safe(findings: list[Verdict]) -> bool:
    """Tell whether environments can be synced there as they were asked for."""
    return all(finding.level != UNSAFE for finding in findings)


def judge(facts: Facts, *, blind: bool, fallback: str = "") -> list[Verdict]:
    """Say what follows from what was found out.

    :param blind: what is asked for can do without knowing whether commands run in an environment: each lock file has
        one of its own, which need never be changed, or it is changed beneath them
    :param fallback: where what a cache lacks goes that cannot be written to (`--cache-fallback`); empty if nowhere
    """
    if facts.writable:
        text = f"nothing can be made in `{facts.directory}` ({facts.writable})"
        advice = "environments that are current can be run; sync them from where they can be written to"
        return [Verdict(UNSAFE, "writing", text, advice)]
    findings = [*_failed(facts)]
    if facts.locks is not None:
        findings += _locks(facts.locks, facts.recorded, blind=blind)
    if facts.names is not None:
        findings += _names(facts.names)
    if facts.times is not None:
        findings += _times(facts.times, network=facts.network)
    if facts.space is not None:
        findings += _space(facts.space)
    if facts.cache is not None:
        findings += _cache(facts.cache, fallback)
    return findings


def _failed(facts: Facts) -> Iterator[Verdict]:
    """Name what could not be found out, and what could not be cleared away."""
    for name, problem in facts.failed.items():
        level = UNSAFE if name == "locks" else LIMITED
        text = f"it could not be found out what this filesystem does ({problem})"
        yield Verdict(level, name, text, "look what the kernel says of it (`dmesg`), or use another filesystem")
    if facts.left:
        text = f"what was made to try it in could not be removed: `{facts.left}`"
        yield Verdict(LIMITED, "removal", text, f"remove it yourself: rm -r {shlex.quote(facts.left)}")


def fault_of_flock(locks: LockFacts) -> str:
    """Say why flock cannot be the environment lock; empty if it can."""
    if locks.local:
        return f"flock stays within this node ({locks.local})"
    if locks.exclusive:
        return f"flock is refused ({locks.exclusive})"
    if not locks.excludes:
        return "flock grants a lock that another process holds"
    return ""


def fault_of_shared(locks: LockFacts) -> str:
    """Say why flock cannot tell whether commands run in an environment; empty if it can."""
    if locks.shared:
        return f"shared locks are refused ({locks.shared})"
    if not locks.shared_together:
        return "shared locks exclude each other"
    if not locks.shared_excludes:
        return "a shared lock does not keep out an exclusive one"
    if not locks.keeps_out_shared:
        return "an exclusive lock does not keep out shared ones"
    return ""


def _locks(locks: LockFacts, recorded: str, *, blind: bool) -> Iterator[Verdict]:
    fault = fault_of_flock(locks)
    if recorded == "unknown":
        yield Verdict(UNSAFE, "locks", "how the environment is locked cannot be read", "`envsync check` there says why")
    elif fault and recorded == "flock":
        text = f"other hosts lock this environment by flock, and here {fault}: it is refused from here"
        yield Verdict(UNSAFE, "locks", text, "mount it here as it is mounted there, or use another environment")
    elif fault:
        text = f"{fault}: environments are locked by a lease, which uv does not know"
        advice = "" if blind else f"{OWN_ENVIRONMENTS}; or have flock enabled (Lustre: mount with flock)"
        yield Verdict(LIMITED if blind else UNSAFE, "locks", text, advice)
    else:
        yield Verdict(FINE, "locks", "flock excludes other processes, as far as one host can tell")
    shared = fault_of_shared(locks)
    if fault or recorded == "lease":
        shared = shared or "without flock"
    if shared and not blind:
        text = f"{shared}: nobody can tell whether commands run in an environment, so a change is refused"
        yield Verdict(UNSAFE, "commands in use", text, OWN_ENVIRONMENTS)
    elif shared:
        text = f"{shared}: commands that run in an environment are not seen, and as asked for need not be"
        yield Verdict(LIMITED, "commands in use", text)
    else:
        yield Verdict(FINE, "commands in use", "shared locks tell whether commands run in an environment")
    if locks.inherited is False:
        text = "a lock is lost when a program is started with it: an environment may change beneath its commands"
        yield Verdict(LIMITED if blind else UNSAFE, "commands in use", text, OWN_ENVIRONMENTS)
    if locks.freed is False:
        text = "the lock of a process that was killed stays: the next sync waits for ever"
        yield Verdict(UNSAFE, "locks", text, "remount the filesystem, or restart its lock service")


def _names(names: Names) -> Iterator[Verdict]:
    if names.rename_over:
        text = f"a file cannot be renamed over another one ({names.rename_over}), and nothing is done without that"
        yield Verdict(UNSAFE, "renames", text, "put the environment on another filesystem")
    elif names.rename_errors:
        text = f"some renames fail and others do not ({', '.join(names.rename_errors)}): each is tried for a while"
        yield Verdict(SLOW, "renames", text, "look for a virus scanner or an indexer that opens new files")
    else:
        yield Verdict(FINE, "renames", "files can be renamed over others")
    if names.rename_directory:
        text = f"directories cannot be renamed ({names.rename_directory}): packages are moved file by file"
        yield Verdict(SLOW, "renames", text)
    if names.symlink:
        text = f"there are no symbolic links ({names.symlink}), and virtual environments need them"
        yield Verdict(UNSAFE, "links", text, "put the environment on another filesystem")
    if names.folds_case:
        yield Verdict(LIMITED, "names", "`A` and `a` are one name: wheels with both cannot be installed")
    if names.hidden:
        text = f"a file that is removed while it is open comes back (`{names.hidden[0]}`): a later sync removes it"
        yield Verdict(LIMITED, "removal", text)


def _times(times: Times, *, network: bool) -> Iterator[Verdict]:
    if times.refused:
        text = f"the times of files cannot be set ({times.refused}): they come without bytecode from the cache"
        yield Verdict(LIMITED, "times", text, "mount it with yourself as the owner (CIFS: uid=), if that is possible")
    apart = max(times.tick or 0.0, times.resolution or 0.0)
    if times.tick is None or apart >= COARSE_SECONDS:
        text = f"times of change are {apart:g} s apart at least: a sync waits for the next before it ends"
        yield Verdict(SLOW, "clock", text)
    if times.seen is None or times.seen > LATE_SECONDS:
        late = "not within seconds" if times.seen is None else f"after {times.seen:.1f} s"
        text = f"what another process changes is seen {late}: who waits starts that much later"
        yield Verdict(SLOW, "caching", text, "mount with a shorter attribute cache (NFS: actimeo)")
    elif network:
        text = "if old files are removed here by their time of change alone, what is linked from the cache goes early"
        yield Verdict(FINE, "purges", text, "there, sync with --link-mode copy or clone (docs/filesystems.md)")
        text = "what other hosts change may be seen late; that takes a second host to find out"
        yield Verdict(FINE, "caching", text)
    slow = {name: seconds for name, seconds in times.calls.items() if seconds >= SLOW_CALL_SECONDS}
    shown = ", ".join(f"{name} {seconds * 1e3:.1f} ms" for name, seconds in slow.items())
    if slow:
        text = f"calls are slow ({shown}): 20,000 files take {20_000 * max(slow.values()):.0f} s or so"
        yield Verdict(
            SLOW, "latency", text, "keep environments on a local disk and share the cache, if that is possible"
        )
    else:
        yield Verdict(FINE, "latency", f"no call takes more than {max(times.calls.values(), default=0.0) * 1e6:.0f} µs")


def _space(space: Space) -> Iterator[Verdict]:
    free, inodes = space
    if free < LITTLE_BYTES:
        yield Verdict(LIMITED, "space", f"{free / 1e6:.0f} MB are left", "a full disk fails a sync and loses nothing")
    if inodes is not None and inodes < FEW_INODES:
        text = f"{inodes} more files can be made; a large environment has 20,000"
        yield Verdict(LIMITED, "space", text, "raise the quota of files")


def _cache(cache: CacheFacts, fallback: str) -> Iterator[Verdict]:
    if not cache.writable and fallback:
        text = f"the cache `{cache.path}` cannot be written to: what it lacks goes to the fallback `{fallback}`"
        yield Verdict(FINE, "cache", text)
    elif not cache.writable:
        text = f"the cache `{cache.path}` cannot be written to: what it lacks is fetched for each environment alone"
        advice = "name a fallback that keeps it: `envsync sync --cache-fallback /var/tmp/envsync-fallback`"
        yield Verdict(LIMITED, "cache", text, advice)
    if cache.lock:
        text = f"the cache `{cache.path}` cannot be locked ({cache.lock}): it is used, but not cleaned"
        yield Verdict(LIMITED, "cache", text, "remove it yourself while nothing is being synced anywhere")
    if cache.link == "" and cache.same_owner:
        yield Verdict(FINE, "cache", "files of the cache are hard linked into environments")
    elif cache.link == "":
        text = "the cache is another user's, whose files are copied where Linux protects them (fs.protected_hardlinks)"
        yield Verdict(SLOW, "cache", text)
    elif cache.clone == "":
        yield Verdict(FINE, "cache", "files of the cache can be cloned into environments")
    elif cache.link is not None:
        why = "they are on two filesystems" if not cache.same_filesystem else f"hard links are refused, {cache.link}"
        text = f"files of the cache are copied into environments ({why})"
        yield Verdict(SLOW, "cache", text, "put the cache beside the environments, with --cache-dir")
    else:
        yield Verdict(FINE, "cache", f"the cache `{cache.path}` is only read")
