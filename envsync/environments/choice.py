"""Which environments go, by age and number: a pure function of what is known of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from envsync.environments.known import Known


class Rules(NamedTuple):
    """What may go: an environment has to fit all that is said.

    :ivar older_than: seconds since its last use; None: however old
    :ivar keep: how many stay that were used last, whatever their age
    """

    older_than: float | None = None
    keep: int = 0

    @property
    def is_everything(self) -> bool:
        """Nothing is said."""
        return self.older_than is None and not self.keep


def chosen(environments: Iterable[Known], rules: Rules, now: float | None = None) -> list[Known]:
    """Choose what goes, what was used least lately first. What is none of ours is neither chosen nor counted.

    Where somebody runs or syncs, it is used now.
    """
    now = time.time() if now is None else now
    ours = [each for each in environments if not each.stranger]
    latest = sorted(
        ours, key=lambda each: (bool(each.commands or each.leader or each.waiters), each.used), reverse=True
    )
    old = [each for each in latest[rules.keep :] if rules.older_than is None or now - each.used >= rules.older_than]
    return old[::-1]
