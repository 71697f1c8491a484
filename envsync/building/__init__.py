"""From source: whatever a lock file names that is no wheel becomes one, once for all who ask.

The only place that runs code of those who publish packages, and git. It is started by a supervisor that has none of our
locks, dies with us, and ends what is left (`supervised`). Sees no request and no environment: it is given what a lock
file has selected, and gives wheels. Start reading at `build`.
"""
