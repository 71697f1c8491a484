"""What follows from facts about a filesystem."""

from __future__ import annotations

from typing import Any

import pytest

from envsync.doctor.facts import CacheFacts, Facts, LockFacts, Names, Space, Times
from envsync.doctor.judge import FINE, LIMITED, SLOW, UNSAFE, Verdict, is_safe, judge

LOCKS = LockFacts("", True, "", True, True, True, True, True, "")
NAMES = Names("", "", "", "", (), "", False, ())
TIMES = Times(1e-9, 0.004, 0.0, {"stat": 1e-5})
CACHE = CacheFacts("/cache", True, True, "ext4", True, True, "", "ENOTSUP", "")
FACTS = Facts("/env", "", "ext4", (), False, "", Space(10**12, 10**9), LOCKS, NAMES, TIMES, CACHE)


def findings(blind: bool = False, **facts: Any) -> list[Verdict]:
    """Judge a sound filesystem, but for some facts: of `Facts`, or of what it is made of."""
    changed = FACTS._replace(**{name: value for name, value in facts.items() if name in Facts._fields})
    for part in ("locks", "names", "times", "cache"):
        whole = getattr(changed, part)
        changed = changed._replace(
            **{part: whole._replace(**{name: facts[name] for name in facts if name in whole._fields})}
        )
    return judge(changed, blind=blind)


def worst(subject: str, **facts: Any) -> tuple[str, str]:
    """Return the level and the text of the worst that is found about a subject."""
    levels = [FINE, SLOW, LIMITED, UNSAFE]
    about = [each for each in findings(**facts) if each.subject == subject]
    found = max(about, key=lambda each: levels.index(each.level))
    return found.level, found.text


def test_all_is_well() -> None:
    """Of a sound filesystem nothing else is said, and nothing is advised."""
    assert {(each.level, each.advice) for each in findings()} == {(FINE, "")}
    assert is_safe(findings())


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"exclusive": "ENOSYS"}, "ENOSYS"),
        ({"excludes": False}, "grants"),
        ({"local": "lustre, localflock"}, "localflock"),
    ],
)
def test_flock_that_cannot_be_trusted(fact: dict[str, Any], words: str, blind: bool) -> None:
    """It is unsafe, unless each lock file has an environment of its own; the reason is named."""
    level, text = worst("locks", **fact, blind=blind)
    assert level == (LIMITED if blind else UNSAFE)
    assert words in text
    assert "lease" in text


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(
    ("fact", "words"),
    [
        ({"shared": "ENOLCK"}, "ENOLCK"),
        ({"shared_together": False}, "exclude each other"),
        ({"shared_excludes": False}, "does not keep out an exclusive"),
        ({"keeps_out_shared": False}, "does not keep out shared"),
    ],
)
def test_shared_locks_that_cannot_be_trusted(fact: dict[str, Any], words: str, blind: bool) -> None:
    """Commands are not seen; the environment lock is as good as ever."""
    level, text = worst("commands in use", **fact, blind=blind)
    assert level == (LIMITED if blind else UNSAFE)
    assert words in text
    assert worst("locks", **fact)[0] == FINE


def test_an_environment_that_others_lock_otherwise() -> None:
    """Where other hosts use flock, this one must; where they use a lease, its flock is of no use."""
    assert worst("locks", recorded="flock", exclusive="ENOSYS", blind=True)[0] == UNSAFE
    assert worst("commands in use", recorded="lease") == (
        UNSAFE,
        "without flock: nobody can tell whether commands run in an environment, so a change is refused",
    )
    assert worst("locks", recorded="unknown")[0] == UNSAFE


@pytest.mark.parametrize(
    ("subject", "fact", "level"),
    [
        ("commands in use", {"inherited": False}, UNSAFE),
        ("locks", {"freed": False}, UNSAFE),
        ("renames", {"rename_over": "EPERM"}, UNSAFE),
        ("renames", {"rename_errors": ("EBUSY",)}, SLOW),
        ("renames", {"rename_directory": "EXDEV"}, SLOW),
        ("links", {"symlink": "ENOTSUP"}, UNSAFE),
        ("names", {"folds_case": True}, LIMITED),
        ("removal", {"hidden": (".nfs0001",)}, LIMITED),
        ("clock", {"tick": None}, SLOW),
        ("clock", {"resolution": 2.0}, SLOW),
        ("caching", {"seen": None}, SLOW),
        ("caching", {"seen": 1.0}, SLOW),
        ("caching", {"network": True}, FINE),
        ("latency", {"calls": {"stat": 0.005}}, SLOW),
        ("space", {"space": Space(10**6, None)}, LIMITED),
        ("space", {"space": Space(10**12, 100)}, LIMITED),
        ("cache", {"writable": False, "cache": CACHE}, LIMITED),
        ("cache", {"lock": "ENOSYS"}, LIMITED),
        ("cache", {"same_owner": False}, SLOW),
        ("cache", {"link": "EXDEV", "same_filesystem": False}, SLOW),
        ("cache", {"link": "EPERM", "clone": ""}, FINE),
        ("cache", {"link": None, "clone": None}, FINE),
    ],
)
def test_everything_else(subject: str, fact: dict[str, Any], level: str) -> None:
    """Each fact has its own consequence, and no other subject suffers from it."""
    if "writable" in fact:
        facts = FACTS._replace(cache=CACHE._replace(writable=False))
        found = [each for each in judge(facts, blind=False) if each.subject == subject]
        assert {each.level for each in found} == {FINE, level}
        return
    assert worst(subject, **fact)[0] == level
    assert {each.level for each in findings(**fact) if each.subject != subject} <= {FINE}


def test_a_cache_that_cannot_be_written_to() -> None:
    """It is said where what it lacks goes, as a sync does it: to the fallback, or to the environment alone."""
    facts = FACTS._replace(cache=CACHE._replace(writable=False))
    text = " ".join(each.text for each in judge(facts, blind=False))
    assert "what it lacks is fetched for each environment alone" in text
    text = " ".join(each.text for each in judge(facts, blind=False, fallback="/var/other"))
    assert "what it lacks goes to the fallback `/var/other`" in text
    assert "alone" not in text


def test_nothing_can_be_written() -> None:
    """Then nothing else can be said."""
    (found,) = judge(FACTS._replace(writable="EROFS", locks=None, names=None, times=None, cache=None), blind=True)
    assert found.level == UNSAFE
    assert "EROFS" in found.text


def test_facts_as_json() -> None:
    """They are plain objects, with the names of the fields."""
    value = FACTS.as_json()
    assert value["locks"]["excludes"] is True
    assert value["names"]["hidden"] == []
    assert value["space"] == {"bytes": 10**12, "inodes": 10**9}
