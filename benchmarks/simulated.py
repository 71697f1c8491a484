"""Many nodes, many tasks and one server of a shared filesystem, computed (SimPy): who waits for what, who starts when.

What the tasks decide is decided by the product's own classes: when one looks again, and whether it tries the
environment lock, by `envsync.waiting.pace.Rhythm`; who looks for whom on its node by
`envsync.waiting.neighbours.Neighbours`. Only their files are not files: a desk of a node's waiters is an object here
(`Paper`), and an environment is whether it is current and whether somebody leads.

What a step costs (`Work`) was counted: requests to the server, and CPU seconds. The server has one queue and some
threads, and each kind of request takes it a fixed time; on top comes the way there and back, which keeps no thread.
docs/scale.md says what else is left out.

Nothing depends on chance but by the seed. A hundred followers read a word twenty times a second: here one wakes only
when that changes what it does, and then as late as its next reading would have been; `exactly` computes each reading.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heapreplace
from typing import Any

import simpy

from envsync.waiting.desk import Desk
from envsync.waiting.neighbours import Neighbours
from envsync.waiting.pace import Pace, Rhythm
from envsync.waiting.word import INTERVALS, load

Steps = Generator[simpy.Event, Any, None]

STAMP = (1, 1)
"""The identity of the stamp, once there is one."""
NOTHING = (0, 0)
SLICE_SECONDS = 0.005
"""Of CPU time, for which one keeps others of its node from it."""
MOST_PIECES = 2_000
"""In which the requests of one step are computed, one after the other."""
BINS = 4000
"""Of the count of requests over time, at most: then they become twice as wide."""


@dataclass(frozen=True)
class Work:
    """What one step asks of the server and of its node.

    :param looks: requests that change nothing
    :param changes: requests that do
    :param locks: requests for locks
    :param cpu: seconds of the node's CPU
    :param size: bytes read
    :param lanes: how many requests are under way at once
    """

    looks: float = 0.0
    changes: float = 0.0
    locks: float = 0.0
    cpu: float = 0.0
    size: float = 0.0
    lanes: float = 1.0

    @property
    def requests(self) -> float:
        return self.looks + self.changes + self.locks

    def __sub__(self, other: Work) -> Work:
        """Leave out what another step takes, too."""
        names = ("looks", "changes", "locks", "cpu", "size")
        return replace(self, **{name: max(0.0, getattr(self, name) - getattr(other, name)) for name in names})

    def __add__(self, other: Work) -> Work:
        names = ("looks", "changes", "locks", "cpu", "size")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in names})

    def __mul__(self, times: float) -> Work:
        names = ("looks", "changes", "locks", "cpu", "size")
        return replace(self, **{name: getattr(self, name) * times for name in names})


NONE = Work()


@dataclass(frozen=True)
class Costs:
    """What the steps of one task cost.

    :param launch: from the start of a task to that of its command, if the environment is current
    :param again: the same, if another task of the node has done so just before, and the node's caches know
    :param begin: what one does on top until it waits or leads
    :param look: one look, with its share of what is done at every few looks only
    :param enter: what one does that has seen the stamp
    :param lead: all that the leader does from there on
    """

    launch: Work
    again: Work
    begin: Work
    look: Work
    enter: Work
    lead: Work


@dataclass(frozen=True)
class Queue:
    """What a tool costs each of whose tasks has an exclusive lock for a while: `uv run`.

    :param before: until the lock is asked for
    :param held: while it is held, if the environment is current
    :param sync: while it is held, by the first one, if the environment is not current
    :param after: from there to the start of the command
    """

    before: Work
    held: Work
    sync: Work
    after: Work


@dataclass(frozen=True)
class Server:
    """A server of a shared filesystem: one queue, and what its requests take.

    :param threads: how many requests it works on at once
    :param look: seconds of a thread for a request that changes nothing
    :param change: for one that does
    :param lock: for one for a lock
    :param latency: seconds that a request is on its way, there and back
    :param rate: bytes a second that all nodes together may read; 0 for no limit
    """

    threads: int
    look: float
    change: float
    lock: float
    latency: float
    rate: float = 0.0

    def service(self, work: Work) -> float:
        return work.looks * self.look + work.changes * self.change + work.locks * self.lock


@dataclass(frozen=True)
class Setting:
    """What is computed.

    :param environments: how many there are: one for all, some for that many lock files, or 0 for one on each node
    :param current: they are current from the beginning
    :param spread: seconds within which the tasks are started
    :param cpus: of a node
    :param cached: for how many seconds a node's caches know what one of its tasks has looked at; 0: nothing is cached
    :param together: so many requests of one task are computed at once, at least
    :param exactly: compute each reading of a word, though it changes nothing
    :param is_server_here: the server runs on the CPUs of the one node, as where it was measured
    """

    nodes: int
    tasks: int
    environments: int = 1
    current: bool = False
    spread: float = 0.0
    cpus: int = 64
    cached: float = 0.0
    together: int = 1
    exactly: bool = False
    is_server_here: bool = False
    seed: int = 1


class Station:
    """What is done by some servers, in the order in which it is asked for."""

    def __init__(self, servers: int) -> None:
        self._free = [0.0] * servers

    def end(self, now: float, seconds: float) -> float:
        """Take the next that is free for so long. Returns when it is done."""
        end = max(now, self._free[0]) + seconds
        heapreplace(self._free, end)
        return end


class Counted:
    """How many requests were sent over time."""

    def __init__(self) -> None:
        self.width = 1 / 16
        self.bins: list[float] = []

    def add(self, when: float, number: float) -> None:
        place = int(when / self.width)
        while place >= BINS:
            self.bins = [sum(self.bins[at : at + 2]) for at in range(0, len(self.bins), 2)]
            self.width *= 2
            place = int(when / self.width)
        if place >= len(self.bins):
            self.bins += [0.0] * (place + 1 - len(self.bins))
        self.bins[place] += number

    @property
    def total(self) -> float:
        return sum(self.bins)


@dataclass
class Outcome:
    """What came of it.

    :ivar starts: when each command was started, the first one first
    :ivar syncs: how many there were
    :ivar late: how many took the lock of an environment that had become current
    :ivar looks: how many times a waiter has looked itself
    :ivar alone: how many of these looks were by somebody whose poller was not heard of for too long
    """

    starts: list[float] = field(default_factory=list)
    syncs: int = 0
    synced: list[float] = field(default_factory=list)
    late: int = 0
    looks: int = 0
    alone: int = 0
    counted: Counted = field(default_factory=Counted)


class Group:
    """What the files of one group of waiters are: who has the place, who reads, and what was said last."""

    def __init__(self) -> None:
        self.owner: Paper | None = None
        self.readers: set[Paper] = set()
        self.data = b""
        self.news: object = None
        self.written = -math.inf
        self.sleepers: list[simpy.Event] = []

    def wake(self) -> None:
        sleepers, self.sleepers = self.sleepers, []
        for sleeper in sleepers:
            if not sleeper.triggered:
                sleeper.succeed()


class Paper(Desk):
    """A desk without files.

    :param place: of the node's waiters for one environment
    :ivar latest: itself, or what it was opened anew as
    """

    __slots__ = ("group", "latest", "place")

    def __init__(self, place: Place) -> None:
        self.latest = self
        self._data = b""
        self.place = place
        self.follows = False
        if place.group is None:
            place.group = Group()
        self.group = place.group

    def anew(self) -> Paper:
        self.latest = Paper(self.place)
        return self.latest

    def newest(self) -> Paper:
        """Return what it was opened anew as, however often."""
        return self if self.latest is self else self.latest.newest()

    def clock(self) -> float:
        return self.place.clock()

    def take(self) -> bool:
        if self.group.owner not in (None, self):
            return False
        self.group.owner = self
        self.group.readers.discard(self)
        self.follows = False
        return True

    def is_in_place(self) -> bool:
        return self.place.group is self.group

    def attend(self) -> None:
        self.group.readers.add(self)
        self.follows = True

    def read(self) -> bytes:
        self._data = self.group.data
        return self._data

    def write(self, data: bytes) -> None:
        self.group.data = data
        self.place.has_written(self.group)

    def is_read(self) -> bool:
        return bool(self.group.readers)

    def remove(self) -> None:
        if self.is_in_place():
            self.place.group = None
            self.group.wake()

    def close(self) -> None:
        self.group.readers.discard(self)
        if self.group.owner is self:
            self.group.owner = None
            self.group.wake()


class Place:
    """Where those on one node meet who wait for one environment.

    :ivar heard: the time, while somebody is to hear what was said a moment ago
    """

    def __init__(self, world: simpy.Environment) -> None:
        self.world = world
        self.group: Group | None = None
        self.heard: float | None = None

    def clock(self) -> float:
        return self.world.now if self.heard is None else self.heard

    def has_written(self, group: Group) -> None:
        """Wake who follows if there is news; and if there is no other word in time, then."""
        group.written = self.world.now
        word = load(group.data)
        if word is None or word.news != group.news:
            group.news = None if word is None else word.news
            group.wake()
        if word is not None:
            data = group.data
            timer = self.world.timeout(max(0.0, word.when + INTERVALS * word.interval - self.world.now))
            timer.callbacks.append(lambda _: group.wake() if group.data is data else None)


class Shared:
    """An environment: whether it is current, and whether somebody has its lock."""

    def __init__(self, world: simpy.Environment, *, current: bool) -> None:
        self.current = current
        self.is_led = False
        self.became = world.event()
        self.lock = simpy.Resource(world)


class Node:
    def __init__(self, setting: Setting) -> None:
        self.cpus = Station(setting.cpus)
        self.places: dict[int, Place] = {}
        self.known_until = -math.inf


class Cluster:
    """All of it, and its tasks.

    :param local: the environments are on the nodes' own disks, where looks cost the server nothing
    """

    def __init__(self, setting: Setting, server: Server, costs: Costs | Queue, *, local: bool = False) -> None:
        self.setting = setting
        self.server = server
        self.costs = costs
        self.local = local
        self.world = simpy.Environment()
        self.chance = random.Random(setting.seed)
        self.nodes = [Node(setting) for _ in range(setting.nodes)]
        self.threads = self.nodes[0].cpus if setting.is_server_here else Station(server.threads)
        self.pipe = Station(1)
        number = setting.environments or setting.nodes
        self.environments = [Shared(self.world, current=setting.current) for _ in range(number)]
        self.outcome = Outcome()

    def compute(self) -> Outcome:
        """Let all tasks run until their commands have started."""
        task = self.queue if isinstance(self.costs, Queue) else self.task
        for number in range(self.setting.nodes * self.setting.tasks):
            at, which = divmod(number, self.setting.tasks)
            index = which % self.setting.environments if self.setting.environments else at
            start = self.chance.random() * self.setting.spread
            self.world.process(task(self.nodes[at], index, start))
        self.world.run()
        self.outcome.starts.sort()
        return self.outcome

    # What a task does

    def task(self, node: Node, index: int, start: float) -> Steps:
        """One `envsync run`: launch; lead, or wait."""
        costs: Any = self.costs
        environment = self.environments[index]
        yield self.world.timeout(start)
        yield from self.do(node, self.launched(node))
        if not environment.current:
            began = self.world.now
            yield from self.do(node, costs.begin)
            if self.takes(environment):
                yield from self.lead(node, environment)
            elif self.local:
                yield from self.wait_here(node, environment, began)
            else:
                yield from self.wait(node, index, environment, began)
        self.outcome.starts.append(self.world.now)

    def launched(self, node: Node) -> Work:
        """Return what a launch costs now: less, if the node's caches know what it looks at."""
        costs: Any = self.costs
        now = self.world.now
        known, node.known_until = now < node.known_until, max(node.known_until, now + self.setting.cached)
        return costs.again if known and self.setting.cached else costs.launch

    def takes(self, environment: Shared) -> bool:
        """Take the environment lock if it is free."""
        if environment.is_led:
            return False
        environment.is_led = True
        return True

    def lead(self, node: Node, environment: Shared) -> Steps:
        """Lead; or, if others have done so meanwhile, find that out, and enter."""
        costs: Any = self.costs
        if environment.current:
            self.outcome.late += 1
            yield from self.do(node, costs.enter)
        else:
            yield from self.do(node, costs.lead)
            environment.current = True
            environment.became.succeed()
            self.outcome.syncs += 1
            self.outcome.synced.append(self.world.now)
        environment.is_led = False

    def wait_here(self, node: Node, environment: Shared, began: float) -> Steps:
        """Wait for an environment on the node's own disk, looking as often as one does there."""
        costs: Any = self.costs
        rhythm = Rhythm(began, self.pace(network=False))
        since = self.world.now
        if not environment.current:
            yield environment.became
        yield self.world.timeout(self.after(since, rhythm.pause(since)))
        self.outcome.looks += 1
        yield from self.do(node, costs.enter)

    def wait(self, node: Node, index: int, environment: Shared, began: float) -> Steps:
        """Wait for an environment that others see, too: what `envsync.waiting.waiter.Wait` does."""
        costs: Any = self.costs
        world, outcome = self.world, self.outcome
        place = node.places.setdefault(index, Place(world))
        rhythm = Rhythm(began, self.pace(network=True))
        paper = Paper(place)
        neighbours = Neighbours(paper, world.now, may_poll=True)
        rhythm.begin(world.now, world.now - began)
        yield world.timeout(rhythm.pause(world.now, for_others=neighbours.are_there()))
        while True:
            now = world.now
            if neighbours.spares(now, rhythm.interval(now, for_others=True)):
                yield from self.follow(paper.newest(), neighbours, rhythm)
                continue
            tries = rhythm.is_to_try(now, is_ours=not neighbours.try_for_us(now))
            rhythm.is_to_heed(tries=tries, among_others=True)
            outcome.looks += 1
            outcome.alone += not neighbours.polls and not neighbours.hears(now)
            paper = paper.newest()
            yield from self.do(node, costs.look)
            enters, leads = environment.current, False
            if enters:
                yield from self.do(node, costs.enter)
            elif tries:
                rhythm.tries(now, for_others=neighbours.are_there())
                leads = self.takes(environment)
            rhythm.looked(world.now - now)
            interval = rhythm.interval(now, for_others=neighbours.are_there())
            seen = (STAMP if enters else NOTHING, NOTHING)
            neighbours.looked(now, seen, interval, is_for_us=False, entered=enters)
            if enters or leads:
                neighbours.leave()
                if leads:
                    yield from self.lead(node, environment)
                return
            rests = neighbours.rests
            for_others = not rests and neighbours.are_there()
            if rests:
                yield from self.follow(paper.newest(), neighbours, rhythm)
            else:
                yield world.timeout(rhythm.pause(world.now, for_others=for_others))

    def follow(self, paper: Paper, neighbours: Neighbours, rhythm: Rhythm) -> Steps:
        """Read the word of somebody else until it says something, or nothing for too long."""
        world, since = self.world, self.world.now
        each = rhythm.pause(since, rests=True)
        if self.setting.exactly:
            yield world.timeout(each)
            return
        group, place = paper.group, paper.place
        sleeper = world.event()
        group.sleepers.append(sleeper)
        own = world.timeout(max(0.0, neighbours.own_at - since))
        own.callbacks.append(lambda _: None if sleeper.triggered else sleeper.succeed())
        if group.owner is None or not paper.is_in_place():
            sleeper.succeed()
        yield sleeper
        wakes = world.now + self.after(since, each)
        if since < group.written < world.now:  # what it would have read meanwhile, and when
            place.heard = group.written + self.after(since, each, group.written)
            if place.heard < wakes:
                neighbours.spares(place.heard)
            place.heard = None
        yield world.timeout(wakes - world.now)

    def after(self, since: float, each: float, moment: float | None = None) -> float:
        """Return how long after a moment, or now, the next reading of one is who reads again and again."""
        moment = self.world.now if moment is None else moment
        count = max(1, math.ceil((moment - since) / each - 1e-9))
        return max(0.0, since + count * each - moment)

    def pace(self, *, network: bool) -> Pace:
        return Pace(network=network, chance=lambda: 2 * self.chance.random() - 1)

    def queue(self, node: Node, index: int, start: float) -> Steps:
        """One run of a tool that locks the environment each time."""
        costs: Any = self.costs
        environment = self.environments[index]
        yield self.world.timeout(start)
        yield from self.do(node, costs.before)
        with environment.lock.request() as turn:
            yield turn
            if environment.current:
                yield from self.do(node, costs.held)
            else:
                yield from self.do(node, costs.sync)
                environment.current = True
                self.outcome.syncs += 1
                self.outcome.synced.append(self.world.now)
        yield from self.do(node, costs.after)
        self.outcome.starts.append(self.world.now)

    # What a step takes

    def do(self, node: Node, work: Work) -> Steps:
        """Do the work of a step, some requests at a time."""
        world, requests = self.world, work.requests
        together = max(self.setting.together, requests / MOST_PIECES)
        pieces = max(1, math.ceil(requests / together / work.lanes))
        lanes, each = max(1, round(work.lanes)), requests / pieces
        service, cpu = self.server.service(work) / pieces / lanes, work.cpu / pieces / lanes
        way = self.server.latency * each / work.lanes
        owed = 0.0
        for piece in range(pieces):
            owed += cpu
            if owed >= SLICE_SECONDS or (owed and piece == pieces - 1):
                end = max(node.cpus.end(world.now, owed) for _ in range(lanes))
                owed = 0.0
                yield world.timeout(end - world.now)
            if each:
                self.outcome.counted.add(world.now, each)
                end = max(self.threads.end(world.now, service) for _ in range(lanes)) + way
                if work.size and self.server.rate:
                    end = max(end, self.pipe.end(world.now, work.size / pieces / self.server.rate))
                yield world.timeout(end - world.now)


def compute(setting: Setting, server: Server, costs: Costs | Queue, *, local: bool = False) -> Outcome:
    """Compute one setting."""
    return Cluster(setting, server, costs, local=local).compute()


def work_of(said: Mapping[str, float]) -> Work:
    return Work(**said)
