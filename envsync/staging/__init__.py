"""Beside its place: everything that a sync brings, linked or copied from the store into a stage in site-packages.

Changes nothing that anybody sees. Start reading at `stage`; `link_modes` says how files come, `shared_files` who
provides a file that several have, `scripts` how the first line of a script is written.
"""
