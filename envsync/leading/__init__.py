"""We sync: from the held environment lock to the stamp.

Imports all that has to do with making an environment current, and nothing of who asked for it. Start reading at `lead`,
then `reconcile`.
"""
