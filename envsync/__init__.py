"""envsync: make a virtual environment match its lock file once, however many processes ask."""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.errors import EnvsyncError
    from envsync.leading.result import SyncResult
    from envsync.library.blocking import Hold, SyncOptions, sync, use
    from envsync.library.coordinator import Coordinator
    from envsync.library.detached import sync_async, use_async
    from envsync.library.words import command

__all__ = [
    "Coordinator",
    "EnvsyncError",
    "Hold",
    "SyncOptions",
    "SyncResult",
    "__version__",
    "command",
    "sync",
    "sync_async",
    "use",
    "use_async",
]

_HOMES = {
    "Coordinator": "envsync.library.coordinator",
    "EnvsyncError": "envsync.errors",
    "Hold": "envsync.library.blocking",
    "SyncOptions": "envsync.library.blocking",
    "SyncResult": "envsync.leading.result",
    "command": "envsync.library.words",
    "sync": "envsync.library.blocking",
    "sync_async": "envsync.library.detached",
    "use": "envsync.library.blocking",
    "use_async": "envsync.library.detached",
}


def __dir__() -> list[str]:
    """Name what is exported, also before it was imported."""
    return __all__


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for (PEP 562): the fast lane imports this package, too."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'envsync' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)
