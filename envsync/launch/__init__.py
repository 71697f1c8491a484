"""`run` in an environment that is current: is it, and then become the command.

Imports built-in modules and `envsync.errors` alone, and that only once something fails: hundreds of tasks pay for each
import at once. What a launch imports does without `from __future__ import annotations`, too: it is a module like any
other, and costs seven file operations. tests/unit/test_rooms.py lists what is loaded. Start reading at `fast_lane`;
`request` and `stamp` are what it compares.
"""
