"""Environments as things: which there are by a template such as `.venvs/{digest}`, what is known of each, which may go.

`template` finds them, `known` looks at one, `choice` says which go by age and number, `removal` removes one, with the
locks of whoever syncs and runs. Looking takes no lock that disturbs anybody. Start reading at `removal`.
"""
