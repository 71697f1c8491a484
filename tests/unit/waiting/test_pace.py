"""How often a waiter looks: often where it costs nothing, seldom where a thousand nodes ask one server."""

from __future__ import annotations

import pytest

from envsync.waiting.pace import Pace


class TestPause:
    """The pauses."""

    def test_local(self) -> None:
        """On a local disk, a waiter looks twenty times a second however long it takes."""
        assert {Pace(network=False).pause(waited) for waited in (0, 1, 60, 86_400)} == {0.05}

    @pytest.mark.parametrize(
        ("waited", "expected"), [(0.0, 0.1), (1.0, 0.1), (5.0, 0.5), (10.0, 1.0), (20.0, 2.0), (60.0, 2.0), (9e9, 2.0)]
    )
    def test_network(self, waited: float, expected: float) -> None:
        """Over a network, the pause grows by a tenth of what was waited from 0.1 s to 2 s, a quarter either way."""
        pauses = [Pace(network=True).pause(waited) for _ in range(400)]
        assert 0.75 * expected <= min(pauses) < 0.85 * expected
        assert 1.15 * expected < max(pauses) <= 1.25 * expected
        assert sum(pauses) / len(pauses) == pytest.approx(expected, rel=0.05)

    def test_spread(self) -> None:
        """Those who started together do not ask together: after a minute, they are spread over the whole pause."""
        phases = []
        for _ in range(200):
            waited = looked = 0.0
            while waited < 60:
                looked, waited = waited, waited + Pace(network=True).pause(waited)
            phases.append((60 - looked) / (waited - looked))
        quarters = [sum(quarter <= phase * 4 < quarter + 1 for phase in phases) for quarter in range(4)]
        assert min(quarters) >= 20

    @pytest.mark.parametrize(("seconds", "least", "most"), [(60, 60, 80), (3600, 1750, 1950)])
    def test_looks(self, seconds: int, least: int, most: int) -> None:
        """A waiter asks the server some 70 times in the first minute and some 1,850 times in the first hour."""
        looks, waited = 0, 0.0
        pace = Pace(network=True)
        while waited < seconds:
            waited += pace.pause(waited)
            looks += 1
        assert least <= looks <= most

    def test_the_rest_of_a_stamp(self) -> None:
        """A stamp is left for two of the longest pauses, so that everybody who waits for it has seen it."""
        for network in (False, True):
            longest = max(Pace(network=network).pause(9e9) for _ in range(200))
            assert Pace(network=network).rest >= 2 * longest * 0.99
