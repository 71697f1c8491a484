"""One look for all: of those on one node who wait for the same, one polls the shared filesystem, and the others hear.

A thousand nodes with sixty-four tasks each would ask one server 64,000 times in each interval. So those of one user on
one node who want the same of the same environment have two files in a directory of that node's
(`envsync.system.node_local`): a *place*, whose lock the poller holds, and its *word* (`envsync.waiting.word`). The
poller looks as everybody would who is alone, and tries the environment lock; after each look it writes its word. The
others read that twenty times a second, and look themselves when it has news.

Nothing depends on it. The word says when to look, never what is there: whoever starts a command, or fails, has looked
itself. So a poller may be stopped, hang in a system call, be killed or become its command at any time:

- its place is free as soon as it has ended: whoever reads the word next takes it
- a word that stands for three of its intervals counts no more: each looks as if alone; and after a second they begin
  a new group, without whoever has the old place. If that one goes on, it finds so, and joins them
- one whose stamp is for it, and who is not let in all the same, looks as if alone; so does everybody once a minute
- whoever cannot use the directory is alone; so are those in other containers, if that is not theirs, too

The poller of others looks twice as often as one who is alone, so that three of its intervals are less than two of
those, and less than a fresh stamp is left in place (`envsync.waiting.pace`). Where the server takes seconds for a look,
the intervals are longer, up to a minute for three: if all looked, it would take the longer. So whoever takes the place
says in how long it has looked before it does.

In which group one is, is said by the environment's path and what that names, by what is wanted (`Demand.key`), and by
the format of words. So the same path in two containers, on two mounts, is two groups, and so are two versions that do
not understand each other's words. If the files are removed or replaced meanwhile, there are two groups for a while: two
look, and nobody waits longer. After a crash, the files are left over, a kilobyte; the last of a group removes them.
"""

from __future__ import annotations

from envsync.launch import stamp
from envsync.system import core, node_local, records
from envsync.waiting import word
from envsync.waiting.desk import Desk
from envsync.waiting.word import INTERVALS, Word

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.launch.demand import Demand
    from envsync.waiting.word import Seen

OWN_SECONDS = 60.0
"""How often everybody looks itself, whatever is said."""
NOTHING_SEEN = ((0, 0), (0, 0))
MOVE_SECONDS = 1.0
"""For how long a word stands at least before its poller is left alone: one that is merely slow is not."""


def find(demand: Demand, now: float, *, may_poll: bool, circle: str = "") -> Neighbours | None:
    """Join those on this node who wait for the same, or begin a group. None: there is no place for one.

    :param now: by time.monotonic()
    :param may_poll: False to follow others only
    :param circle: a group of its own among them (`envsync.waiting.speaking`)
    """
    directory = node_local.directory()
    if not directory:
        return None
    try:
        path = demand.environment.path
        status = os.stat(path)
        path = path if core.is_absolute(path) else f"{core.getcwd()}/{path}"
        wanted = f"{demand.key}\0{circle}\0{records.FORMAT}"
        group = f"{path}\0{status.st_dev}\0{status.st_ino}\0{wanted}".encode("utf-8", "surrogateescape")
        return Neighbours(Desk(f"{directory}/{stamp.checksum(group)}"), now, may_poll=may_poll)
    except OSError:
        return None


class Neighbours:
    """What one waiter has to do with those on its node who wait for the same.

    Before each look, `spares`: if that is so, somebody else looks for us and has seen nothing new. If not, look, and
    say by `looked` what was seen. A file that cannot be used ends it all: then one is alone.

    :param desk: the files of the group
    :param may_poll: False to follow others only
    :param now: by time.monotonic(), as everywhere here
    :ivar own_at: when we look ourselves in any case
    :ivar polls: we have the place
    :ivar rests: somebody else looks for us, as was found last
    :ivar said: what was heard or said last
    """

    __slots__ = ("_desk", "_heard", "_may_poll", "_odd", "_since", "own_at", "polls", "rests", "said")

    def __init__(self, desk: Desk, now: float, *, may_poll: bool) -> None:
        self._may_poll = may_poll
        self._desk: Desk | None = desk
        self._since = now
        """Since when the word stands, or there is none."""
        self._heard: tuple[Seen, int] | None = None
        """What we have looked at last."""
        self._odd = False
        """There we saw something else than the poller, or what is for us and does not let us in."""
        self.own_at = now + OWN_SECONDS
        self.polls = False
        self.rests = False
        self.said: Word | None = None

    def spares(self, now: float, interval: float = 0.0) -> bool:
        """Tell whether somebody else looks for us, and has seen nothing new. Takes the place if nobody has it.

        :param interval: in how many seconds we have looked at the latest, if we take it: that is said to the others,
            who would else begin a new group if the look takes long; 0: it is not
        """
        self.rests = False
        try:
            if self._desk is not None and self._follows(self._desk, now, interval):
                is_old = self.said is not None and self.said.news == self._heard
                self.rests = is_old and not self._odd and now < self.own_at
        except OSError:
            self.leave()
        return self.rests

    @property
    def is_over(self) -> bool:
        """Whether we are alone from now on."""
        return self._desk is None

    def hears(self, now: float) -> bool:
        """Tell whether there is a word of somebody else, and it has not stood for too long."""
        if self._desk is None or self.said is None or self.polls:
            return False
        return max(now - self._since, self._desk.clock() - self.said.when) < INTERVALS * self._interval

    def try_for_us(self, now: float) -> bool:
        """Tell whether somebody else tries the environment lock for us, though we look for ourselves just now."""
        return self.hears(now) and not self._odd and now < self.own_at

    def looked(self, now: float, seen: Seen, interval: float, *, is_for_us: bool, entered: bool) -> None:
        """Say what we have seen, if we look for all; or remember it.

        :param now: when we began to look
        :param seen: the identities of the stamp and of the failures
        :param interval: until we have looked again, in seconds
        :param is_for_us: the stamp is, and does not let us in
        :param entered: it let us in
        """
        try:
            if self._desk is not None and self.polls:
                self._say(self._desk, interval, seen, entered=entered)
            elif self.hears(now) and self.said is not None:
                self._heard = self.said.news
                self._odd = is_for_us or seen != self.said.seen
                self.own_at = now + OWN_SECONDS
                self.rests = not self._odd
        except OSError:
            self.leave()

    def leave(self) -> None:
        """Leave them, and pass the place on. Does so once."""
        desk = self._desk
        self._desk, self.polls, self.rests, self.said = None, False, False, None
        if desk is None:
            return
        try:
            if desk.take() and not desk.is_read():
                desk.remove()
        except OSError:
            pass  # they stay, as after a crash
        desk.close()

    def are_there(self) -> bool:
        """Tell whether we look for others, too."""
        try:
            return self.polls and self._desk is not None and self._desk.is_read()
        except OSError:
            return False

    def _follows(self, desk: Desk, now: float, interval: float) -> bool:
        """Tell whether somebody else looks for us just now."""
        if self.polls and desk.is_in_place():
            return False
        if self.polls:  # we were stopped, say, and the others have begun a new group
            desk = self._begin_anew(desk, now)
        if self._takes(desk, now, interval):
            return False
        self._hear(desk, now)
        if now - self._since >= max(MOVE_SECONDS, INTERVALS * self._interval) and not self.hears(now):
            desk.remove()
            self._takes(self._begin_anew(desk, now), now, interval)
        return self.hears(now)

    def _takes(self, desk: Desk, now: float, interval: float) -> bool:
        """Take the place if nobody has it, and it still is where others come to."""
        if not self._may_poll or not desk.take():
            return False
        if not desk.is_in_place():
            desk = self._begin_anew(desk, now)
            if not desk.take():
                return False
        self.said, self.polls = word.load(desk.read()), True
        if interval:
            self._say(desk, interval, self.said.seen if self.said is not None else NOTHING_SEEN, entered=False)
        return True

    def _begin_anew(self, desk: Desk, now: float) -> Desk:
        """Join those who find the files that are in place now, or be the first of them."""
        self._desk = desk.anew()
        desk.close()
        self.said, self.polls, self._since = None, False, now
        return self._desk

    def _hear(self, desk: Desk, now: float) -> None:
        """Take note of the word, if it is another one."""
        desk.attend()
        latest = word.load(data) if (data := desk.read_anew()) else None
        if latest is not None:
            self.said, self._since = latest, now

    def _say(self, desk: Desk, interval: float, seen: Seen, *, entered: bool) -> None:
        count, before = (self.said.count, self.said.entered) if self.said is not None else (0, 0)
        self.said = Word(desk.clock(), interval, seen, before + entered, count + 1)
        desk.write(self.said.dump())

    @property
    def _interval(self) -> float:
        return self.said.interval if self.said is not None else 0.0
