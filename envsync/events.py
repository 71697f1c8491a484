"""What a `Coordinator` tells a task runner, as it happens: the public name of `envsync.library.events`."""

from envsync.errors import EnvsyncError  # noqa: F401  # types of fields, for who asks for them
from envsync.leading.result import SyncResult  # noqa: F401  # likewise
from envsync.library.events import Cancelled, Event, Failed, Finished, Progress, Recovered, Started, TookOver, Waiting

__all__ = ["Cancelled", "Event", "Failed", "Finished", "Progress", "Recovered", "Started", "TookOver", "Waiting"]
