#!/bin/bash
# srun --task-prolog=task-prolog.sh python job.py
#
# Slurm takes each line `export NAME=value` that a task prolog prints into the task's environment, and shows what stands
# behind `print`; what it writes to stderr is lost. The task does not hold the environment: so only one that is named by
# {digest}, which is never changed, may be used in this way.
if ! said=$(envsync sync --quiet --json --env 'envs/{digest}' 2>&1); then
    printf '%s\n' "$said" | sed 's/^/print /'
    exit 1
fi
env=$(printf '%s' "$said" | sed -n 's/.*"env": "\([^"]*\)".*/\1/p')
echo "export VIRTUAL_ENV=$env"
echo "export PATH=$env/bin:$PATH"
