"""The tools whose lock files are read say what these mean: what they would install is what is selected here.

Each is named by a variable (`ORACLE_POETRY`, `ORACLE_PDM`, `ORACLE_PIPENV`) or found on PATH; where there is none, its
tests are skipped. Locks are made at test time, of packages that are on an index on this machine.
"""
