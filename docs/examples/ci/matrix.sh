#!/bin/sh
# All Pythons on one machine, at once: an environment for each, one cache for all. Fails if one of them fails.
status=0
started=
for python in ${PYTHONS:-3.11 3.12 3.13}; do
    envsync run --locked --python "$python" --env '.venvs/{python}' -- python -m unittest &
    started="$started $!"
done
for process in $started; do
    wait "$process" || status=1
done
exit $status
