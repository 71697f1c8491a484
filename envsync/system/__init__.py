"""What this kernel does for us: files that are whole or not there, processes, mounts, groups, forks.

May import `launch`, for descriptors and messages. `atomic`, `records`, `processes` and `mounts` are for waiters, too,
and import built-in modules alone. Start reading at `atomic`: how all that we write gets its name.
"""
