#!/bin/sh
# Containers of two users at once, with one cache: it belongs to a group, and both are in that.
set -e
: "${IMAGE:=job}" "${CACHE:=$PWD/cache}" "${GROUP:=5000}"
mkdir -p "$CACHE"
chgrp "$GROUP" "$CACHE"
chmod 2770 "$CACHE"
for user in 1000 1001; do
    ${PODMAN:-podman} run --rm --user "$user:$GROUP" \
        --volume "$CACHE:/cache" --env ENVSYNC_CACHE_DIR=/cache \
        --volume "$PWD:/shared:ro" --workdir /shared --env ENVSYNC_ENV=/tmp/env \
        $OPTIONS "$IMAGE" envsync run -- python job.py &
    started="$started $!"
done
for process in $started; do
    wait "$process"
done
