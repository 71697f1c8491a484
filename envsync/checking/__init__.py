"""Is every file of an environment what its distribution says? And if not: put it right, by a sync like any other.

Start reading at `verify`; `expected` says what ought to be there, `compare` what is.
"""
