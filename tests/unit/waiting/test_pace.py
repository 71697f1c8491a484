"""How often a waiter looks: often where it costs nothing, seldom where a thousand nodes ask one server."""

from __future__ import annotations

import pytest

from envsync.waiting.pace import TOOK_MOST_SECONDS, Pace, Rhythm


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


class TestRhythm:
    """One waiter's looks."""

    def test_slow_server(self) -> None:
        """The pause is at least as long as the last look took, up to a bound; and who hears waits for both."""
        rhythm = Rhythm(100.0, Pace(network=True))
        rhythm.begin(101.0, 0.01)
        assert rhythm.pause(101.0) < 0.2
        for took in (5.0, 9e9):
            rhythm.looked(took)
            least = min(took, TOOK_MOST_SECONDS)
            assert rhythm.pause(101.0) == rhythm.pause(101.0, for_others=True) == least
            assert rhythm.interval(101.0, for_others=True) == 2 * least
        assert rhythm.pause(101.0, rests=True) < 0.2
        rhythm.looked(0.01)
        assert rhythm.pause(101.0) < 0.2
        assert rhythm.interval(200.0) == pytest.approx(2.5, abs=0.02)

    def test_local(self) -> None:
        """On a local disk, the pause is what it is, however long a look took."""
        rhythm = Rhythm(100.0, Pace(network=False))
        rhythm.begin(101.0, 5.0)
        rhythm.looked(5.0)
        assert rhythm.pause(102.0) == 0.05

    def test_tries(self) -> None:
        """The environment lock is tried at every eighth look; not while somebody else does it for us."""
        rhythm = Rhythm(100.0, Pace(network=True, chance=lambda: 1.0))
        rhythm.begin(100.0, 0.0)
        assert not rhythm.is_to_try(100.9)
        assert rhythm.is_to_try(101.1)
        assert not rhythm.is_to_try(101.1, is_ours=False)
        rhythm.tries(101.1)
        assert not rhythm.is_to_try(102.0)
        assert rhythm.is_to_try(102.2)

    def test_failures(self) -> None:
        """They are looked at at every fourth look; at each by those who have neighbours, or try the lock."""
        rhythm = Rhythm(0.0, Pace(network=False))
        heeds = [rhythm.is_to_heed(tries=False, among_others=False) for _ in range(8)]
        assert heeds == [False, False, False, True] * 2
        assert rhythm.is_to_heed(tries=True, among_others=False)
        assert rhythm.is_to_heed(tries=False, among_others=True)
