#!/bin/sh
# envsync: start Python on the fast lane.
#
# A shell script costs 1 ms, and the console script that pip would write costs 7: it imports `site` and `re`
# before our first line. `-I` ignores PYTHONPATH and the user's directory, `-S` puts `site` off until it is needed.
self=$0
while [ -L "$self" ]; do
    link=$(readlink "$self")
    case $link in
    /*) self=$link ;;
    *) self=${self%/*}/$link ;;
    esac
done
bin=${self%/*}
for python in "$bin/python3" "$bin/python"; do
    [ -x "$python" ] && exec "$python" -I -S -c '
import sys
bin = sys.argv[1]
sys.argv[:2] = ["envsync"]
sys.path.insert(0, "%s/../lib/python%d.%d/site-packages" % (bin, *sys.version_info[:2]))
try:
    from envsync.__main__ import start
except ImportError:
    del sys.path[0]
    import site
    site.main()
    from envsync.__main__ import start
start()' "$bin" "$@"
done
exec python3 -P -m envsync "$@"
