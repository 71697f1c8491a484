"""Unpacked wheels by hash, and their bytecode, shared by processes, users and hosts: what has its name is whole.

Knows wheels, and nothing of environments but who links its entries (`users`). Start reading at `store`; `publish` is
how an entry gets its name, `damage` what is done about one that is not as it was put there.
"""
