"""Which Python an environment is made with: its facts, the markers and tags that follow, and how to make one of it.

Nothing here knows of lock files; what runs within a target Python is `interpreter_child`, alone with its standard
library. Start reading at `facts`, then `interpreter`.
"""
