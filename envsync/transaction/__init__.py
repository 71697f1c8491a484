"""The commit: steps decided, journaled and done, so that a kill at any moment leaves what the next leader completes.

Start reading at `change`, then `journal`; `stamping` writes the stamp, last of all.
"""
