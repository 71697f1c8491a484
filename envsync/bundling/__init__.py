"""Bundles: all that a lock file needs in one directory, used where there is no index, no network, and no compiler.

Made by `making`, for the Pythons that `targets` finds or works out; `combining` writes one lock file for all of them, a
standard one (PEP 751). Start at `directory`, which says what is in a bundle and what holds whoever is killed; `keeping`
brings wheels into it, `verifying` reads them all again, `pruning` alone removes any.
"""
