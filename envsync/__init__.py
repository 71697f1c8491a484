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
    from envsync.managing.cache import add_to_cache, cache_contents, cache_directory, prune_cache
    from envsync.managing.environments import list_environments, remove_environments
    from envsync.managing.looking import check, status

__all__ = [
    "Coordinator",
    "EnvsyncError",
    "Hold",
    "SyncOptions",
    "SyncResult",
    "__version__",
    "add_to_cache",
    "cache_contents",
    "cache_directory",
    "check",
    "command",
    "list_environments",
    "prune_cache",
    "remove_environments",
    "status",
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
    "add_to_cache": "envsync.managing.cache",
    "cache_contents": "envsync.managing.cache",
    "cache_directory": "envsync.managing.cache",
    "check": "envsync.managing.looking",
    "command": "envsync.library.words",
    "list_environments": "envsync.managing.environments",
    "prune_cache": "envsync.managing.cache",
    "remove_environments": "envsync.managing.environments",
    "status": "envsync.managing.looking",
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
