"""For programs: `sync`, `use` and `Coordinator`, and the one way in which every caller gets an environment current.

`reach` waits or leads. It is what the command line uses, too, so it imports no library before it leads. Start reading
at `reach`, then `blocking`; what programs may rely on is what `envsync` itself exports, `envsync.errors` and
`envsync.events`.
"""


def __getattr__(name: str) -> object:
    """Hand on what was in a module of this name: programs of the version before have pickled it so."""
    if name not in {"sync", "use"}:
        raise AttributeError(f"module 'envsync.library' has no attribute {name!r}")
    from envsync.library import blocking

    handed_on: object = getattr(blocking, name)
    return handed_on
