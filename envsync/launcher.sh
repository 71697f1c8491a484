#!/bin/sh
''':'
# envsync: start Python on the fast lane.
#
# A shell script costs 1 ms, and the console script that pip would write costs 7: it imports `site` and `re`
# before our first line. `-I` ignores PYTHONPATH and the user's directory, `-S` puts `site` off until it is needed.
# It is Python, too, for those who run it as that (shiv): they read this as a string, and go on below.
#
# Variables of the shell that were exported keep being so: so all that is set here has a name that nobody else uses.
case $0 in
/*) _envsync_self=$0 ;;
*) _envsync_self=$PWD/$0 ;;
esac
while [ -L "$_envsync_self" ]; do
    _envsync_link=$(readlink "$_envsync_self")
    case $_envsync_link in
    /*) _envsync_self=$_envsync_link ;;
    *) _envsync_self=${_envsync_self%/*}/$_envsync_link ;;
    esac
done
_envsync_bin=${_envsync_self%/*}

# The Python that it is installed in, and no other one: that would have another envsync, or none.
_envsync_fail() {
    _envsync_link="envsync: error: $1
hint: $2"
    # A directory may have been given as a URL: its user is hidden, as everywhere (`envsync.errors.redact`).
    case $_envsync_link in
    *:/*@*)
        _envsync_link=$(printf '%s' "$_envsync_link" |
            LC_ALL=C command -p sed -E 's#(([tT][pP]|[pP][sS]|[sS][hH]):/+)[^ ]*@#\1#g')
        ;;
    esac
    printf '%s\n' "$_envsync_link" >&2
    exit 125
}
_envsync_anew="install envsync anew, as in: pipx reinstall envsync"
_envsync_python=$_envsync_bin/python3
[ -x "$_envsync_python" ] || _envsync_python=$_envsync_bin/python
if [ ! -x "$_envsync_python" ]; then
    for _envsync_python in "$_envsync_bin/python3" "$_envsync_bin/python"; do
        [ ! -L "$_envsync_python" ] || _envsync_fail \
            "the Python that envsync is installed in is gone: \`$_envsync_python\` leads nowhere" \
            "make it available again, or $_envsync_anew"
    done
    for _envsync_link in "$_envsync_bin"/../lib/python3*/*-packages "$_envsync_bin/.."; do
        [ ! -d "$_envsync_link/envsync" ] || break
    done
    _envsync_fail "\`$_envsync_self\` has no python3 beside it that would be the one it was installed for" \
        "run it by that Python, as in: PYTHONPATH='$_envsync_link' python3 -m envsync --version"
fi
trap '_envsync_fail "cannot start the Python that envsync is installed in, \`$_envsync_python\`" "$_envsync_anew"' EXIT

# A command inherits signals that were ignored. Python ignores these two itself, so it has to be told whether they were
# before: a shell cannot trap what was ignored when it began.
_envsync_pipe=PIPE _envsync_xfsz=XFSZ
trap _envsync_pipe= PIPE
trap _envsync_xfsz= XFSZ
kill -PIPE $$
kill -XFSZ $$
trap - PIPE XFSZ
# Python sets this one where the locale is C (PEP 538).
_envsync_ctype=${LC_CTYPE+CTYPE}

# Other shells than bash keep no variables whose names are none for a shell (`BASH_FUNC_module%%`, `spring.profile`):
# these are handed on in others, each in one, since the kernel takes 128 KB in one. \001 is for the ends of lines.
# In the locale C, `tr` starts in a quarter less of its time; `command -p` finds it whatever PATH is.
if [ "${1-}" = run ] && [ -z "${BASH_VERSION-}" ]; then
    _envsync_ifs=$IFS IFS='
' _envsync_count=0
    set -f
    for _envsync_link in $(LC_ALL=C command -p tr '\000\012' '\012\001' 2>/dev/null <"/proc/$$/environ"); do
        case ${_envsync_link%%=*} in
        [0-9]* | *[!A-Za-z0-9_]*)
            export "_envsync_odd$_envsync_count=$_envsync_link"
            _envsync_count=$((_envsync_count + 1))
            ;;
        esac
    done
    set +f
    IFS=$_envsync_ifs
fi

# In a wheel, all that a launch loads is in one file besides (`.ci/join.py`): Python finds its bytecode, or makes it, as it
# does for any module, and six system calls read it. Else (an editable install has no such file, or it cannot be loaded)
# the modules are imported one by one.
exec "$_envsync_python" -I -S -c '
import gc, posix, sys
from _frozen_importlib_external import SourceFileLoader

def read(path):
    fd = posix.open(path, posix.O_CLOEXEC)
    data = posix.read(fd, posix.fstat(fd).st_size)
    posix.close(fd)
    return data

gc.disable()
_, bin, said, anew, otherwise, *words = sys.argv
sys.argv = ["envsync", *words]
home = bin + "/../lib/python%d.%d/site-packages" % sys.version_info[:2]
try:
    loader = SourceFileLoader("joined", home + "/envsync/launch/joined.py")
    loader.get_data = read
    exec(loader.get_code("joined"))
except Exception:
    exec(otherwise)
start(said)' "$_envsync_bin" "$_envsync_pipe $_envsync_xfsz $_envsync_ctype" "$_envsync_anew" '
sys.path.insert(0, home)
try:
    from envsync.__main__ import start
except ImportError:
    del sys.path[0]
    import site
    site.main()
    try:
        from envsync.__main__ import start
    except ImportError as error:
        import re
        python = re.sub("(?i)((ps|tp|sh):/+)[^ ]*@", r"\1", sys.executable)
        sys.stderr.write("envsync: error: `%s` has no envsync: %s\nhint: %s\n" % (python, error, anew))
        sys.exit(125)' "$@"
'''

from envsync.__main__ import start

start()
