"""Into the store: find what is missing, download, unpack and compile it, many at once.

The only place that opens connections. Start reading at `fetch`, then `gathering`.
"""

CONNECTIONS = 16
"""At once, in all processes of a sync. As many locks of wheels are held: others may have the rest meanwhile."""
