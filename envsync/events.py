"""What a `Coordinator` tells a task runner, as it happens: the public name of `envsync.library.events`."""

from envsync.library.events import Cancelled, Event, Failed, Finished, Progress, Recovered, Started, TookOver, Waiting

__all__ = ["Cancelled", "Event", "Failed", "Finished", "Progress", "Recovered", "Started", "TookOver", "Waiting"]
