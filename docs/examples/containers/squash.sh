#!/bin/sh
# An environment as one file: a node that starts it opens one file on the shared disk, and not twenty thousand.
# It is of use at the path at which it was made: scripts and the stamp name that.
set -e
: "${ENVSYNC_ENV:=/opt/env}"
export ENVSYNC_ENV
envsync sync --link-mode copy --compile-bytecode
mksquashfs "$ENVSYNC_ENV" env.sqfs.new -noappend -quiet -no-progress
mv env.sqfs.new env.sqfs
# On a node:
#   apptainer exec --bind env.sqfs:/opt/env:image-src=/ job.sif envsync run --no-sync --env /opt/env -- python job.py
#   mount -t squashfs -o ro,loop env.sqfs /opt/env        # as root, without an image
