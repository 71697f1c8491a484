"""Into the store: find what is missing, download, unpack and compile it, many at once.

The only place that opens connections. Start reading at `fetch`.
"""
