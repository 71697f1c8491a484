"""Somebody else syncs: wait for them, take turns, share what became of it.

Imports built-in modules and the rooms above alone, and no library: fifty waiters on two cores pay for each import at
once. Start reading at `waiter`; `pace` says how often it looks, `failures` what it shares.
"""
