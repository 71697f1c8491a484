"""One wheel, read without trust: what is in the archive, what its RECORD says, and where its files go.

Knows no store: it unpacks into a directory that it is given. Start reading at `unpack`; `manifest` is what an unpacked
wheel is known by.
"""
