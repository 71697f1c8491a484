"""A part of `waiting`, run as a script by the Python that runs envsync, to look at its pace from inside.

    paced.py BIN network WORDS...     become `envsync WORDS...`, taking every filesystem for a network's
    paced.py BIN looks FROM TO        print how often a waiter looks in those seconds of its wait: local, network

BIN is the directory of envsync's launcher; what is imported is found as the launcher does it.
"""

from __future__ import annotations

import sys

SIMULATED = 200
"""Waits that are averaged: the pauses over a network are spread by chance."""


def main(directory: str, mode: str, *words: str) -> None:
    sys.path.insert(0, "{}/../lib/python{}.{}/site-packages".format(directory, *sys.version_info[:2]))
    from envsync.system import mounts
    from envsync.waiting import pace

    if mode == "looks":
        begin, end = map(float, words)
        looks = (mean_looks(pace.Pace(network=network), begin, end) for network in (False, True))
        print(*looks, pace.LOCKS_APART)
        return
    mounts.is_network = lambda path: True  # noqa: ARG005
    sys.argv[:] = ["envsync", *words]
    from envsync.__main__ import start

    start()


def mean_looks(its_pace, begin, end):  # type: ignore[no-untyped-def] # the class is envsync's own
    """Return the mean number of looks between two times of a wait, in seconds."""
    looks = 0
    for _ in range(SIMULATED):
        waited = 0.0
        while waited < end:
            waited += its_pace.pause(waited)
            looks += begin <= waited < end
    return looks / SIMULATED


if __name__ == "__main__":
    main(*sys.argv[1:])
