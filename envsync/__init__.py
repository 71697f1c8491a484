"""envsync: make a virtual environment match its lock file once, however many processes ask."""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.coordinator import Coordinator
    from envsync.errors import EnvsyncError
    from envsync.library import Hold, SyncOptions, sync, use
    from envsync.syncing import SyncResult

__all__ = ["Coordinator", "EnvsyncError", "Hold", "SyncOptions", "SyncResult", "__version__", "sync", "use"]

_HOMES = {
    "Coordinator": "envsync.coordinator",
    "EnvsyncError": "envsync.errors",
    "Hold": "envsync.library",
    "SyncOptions": "envsync.library",
    "SyncResult": "envsync.syncing",
    "sync": "envsync.library",
    "use": "envsync.library",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562): the fast lane imports this package, too."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'envsync' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)
