"""The floor: one thread at a time, in the order of asking; and nobody waits for it for long."""

from __future__ import annotations

import threading

import pytest

from envsync.fetching import floor as module
from envsync.fetching.floor import Floor


def until_asked_for(floor: Floor) -> None:
    while not floor._asking:
        threading.Event().wait(0.001)


def test_one_at_a_time_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks gets it from the one before."""
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    floor, had = Floor(), []

    def have(number: int) -> None:
        with floor.had():
            had.append(number)

    with floor.had():
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=have, args=(number,)))
            threads[-1].start()
            while len(floor._asking) <= number:
                threading.Event().wait(0.001)
        assert had == []
    for thread in threads:
        thread.join()
    assert had == [0, 1, 2, 3, 4]
    assert not floor._had


def test_giving_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has it for longer lets others have it, and goes on after them."""
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    monkeypatch.setattr(module, "HAVE_SECONDS", 0.0)
    floor, had = Floor(), []

    def have() -> None:
        with floor.had():
            had.append("other")

    with floor.had() as having:
        having.give_way()
        thread = threading.Thread(target=have)
        thread.start()
        until_asked_for(floor)
        having.give_way()
        had.append("again")
    thread.join()
    assert had == ["other", "again"]
    assert not floor._had


def test_who_does_not_get_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder may wait for the network; and what one does not have, one does not hand on."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    floor = Floor()
    with floor.had():
        with floor.had() as without:
            without.give_way()
        assert floor._had
    assert not floor._had
    assert not floor._asking


def test_nobody_waits_for_one_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """One has waited in vain; from when it gets on, all wait again."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "HAVE_SECONDS", 0.0)
    floor = Floor()
    with floor.had() as having:
        assert not floor.ask()
        monkeypatch.setattr(module, "PATIENCE", threading.TIMEOUT_MAX)
        assert not floor.ask()
        having.give_way()  # it gets on after all
        thread = threading.Thread(target=lambda: floor.ask() and floor.hand_on())
        thread.start()
        until_asked_for(floor)
    thread.join()
    assert not floor._had
