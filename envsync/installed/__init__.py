"""What is installed in an environment, and what has to change for a target.

Reads the environment and our own ledger, and changes neither. Start reading at `scan`; `plan` is a pure function of
what is there and what is wanted.
"""
