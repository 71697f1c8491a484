"""For programs: `sync`, `use` and `Coordinator`, and the one way in which every caller gets an environment current.

`reach` waits or leads. It is what the command line uses, too, so it imports no library before it leads. Start reading
at `reach`, then `blocking`; what programs may rely on is what `envsync` itself exports, `envsync.errors` and
`envsync.events`.
"""
