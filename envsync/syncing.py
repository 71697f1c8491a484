"""The module that `SyncResult` was in: programs of the version before have pickled it so."""

from envsync.library.syncing import SyncResult

__all__ = ["SyncResult"]
