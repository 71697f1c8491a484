"""We sync: from the held environment lock to the stamp.

Imports all that has to do with making an environment current, and nothing of who asked for it. A `session`
says what a sync is about, `held` whether the environment is still ours. Start reading at `lead`, then `reconcile`.
"""
