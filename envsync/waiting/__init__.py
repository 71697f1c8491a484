"""Somebody else syncs: wait for them, take turns, share what became of it.

Imports built-in modules, and of the rooms below no more than `locks`, `system`, `launch` and `errors`, until it has to
remove something: fifty waiters on two cores pay for each import at once. tests/unit/test_rooms.py lists what is loaded.
Start reading at `waiter`; `pace` says how often it looks, `failures` what it shares.
"""
