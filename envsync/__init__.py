"""envsync: make a virtual environment match its lock file once, however many processes ask."""

__version__ = "0.1.0"

__all__ = ["EnvsyncError", "SyncResult", "__version__", "sync"]

_HOMES = {"EnvsyncError": "envsync.errors", "SyncResult": "envsync.library", "sync": "envsync.library"}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562): the fast lane imports this package, too."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'envsync' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)
