"""The table of strikes: what a sparse one leaves out, and what it does not."""

from __future__ import annotations

import pytest

from tests.crash.grid import kinds_for
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.table import is_plain, thinned


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
@pytest.mark.parametrize("apart", [1, 5, 15, 100])
def test_a_sparse_one_strikes_each_change(scenario: Scenario, apart: int) -> None:
    """In a way that any change can be struck, or it would seem to be over early; by turns, it strikes in all ways."""
    kinds = kinds_for(scenario)
    turns = [thinned(kinds, nth, apart) for nth in range(1, len(kinds) + 1)]
    for chosen in turns:
        assert any(map(is_plain, chosen))
        assert any(kind.within for kind in chosen) == scenario.served
    assert {kind for chosen in turns for kind in chosen} == set(kinds)
