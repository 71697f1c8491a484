"""The module that `SyncResult` was in: programs of the version before have pickled it so."""

from envsync.leading.result import SyncResult

__all__ = ["SyncResult"]
