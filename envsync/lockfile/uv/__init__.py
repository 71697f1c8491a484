"""uv.lock: read it, and select from it what `uv sync --frozen` would install.

`lock` begins it. What the file says is in `records`, what pyproject.toml adds in `project`; `roots` finds where the
walk begins, `walk` goes along the edges, `files` takes one file of each package. `variables` are uv's own.
"""
