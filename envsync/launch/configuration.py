"""The options that files give: the project's, the user's and the site's; and what stands for something else in them.

    [tool.envsync] in pyproject.toml       the project
    $XDG_CONFIG_HOME/envsync.toml          the user; ~/.config/envsync.toml if that variable is not set
    /etc/envsync.toml                      the site; another file if `ENVSYNC_SITE_CONFIG` names one

What is said nearer to the command wins: command line, `ENVSYNC_*`, project, user, site. All are read at every launch:
the last two cost it a try to open each, outside of environment and project. A home may lie on a network filesystem.
So a site's file can say `user-configuration = false`, and the user's is not looked for.

Each is read without a TOML parser where it is plain: one-line strings and booleans. `tomllib` costs a launch 8 ms.
"""

from envsync.launch import options, reading
from envsync.system import core

os = core.os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from envsync.launch.options import Settings

SITE = "/etc/envsync.toml"
SITE_VARIABLE = "ENVSYNC_SITE_CONFIG"
"""Names another file instead, as a module file of a cluster may."""
USERS = "user-configuration"
"""The key of a site's file that says whether the user's is read."""
FILE = "envsync.toml"
PATHS = ("lock", "project", "env", "cache_dir", "cache_fallback", "find_links")
OWN_PLACES = ("env", "cache_dir", "cache_fallback")
"""What may have `{user}` and `{host}` in it: where envsync writes."""
LEFT_OUT = "leave such files out: `envsync sync --no-config`"


def table_of(data: bytes, path: str) -> "Settings":
    """Return what `[tool.envsync]` says in a pyproject.toml; empty if there is none."""
    if b"envsync" not in data:
        return {}
    table = plain_table(data)
    if table is None:
        table = _parsed(data, path, "tool", "envsync")
    return options.from_table(table, f"[tool.envsync] of `{path}`", options.in_a_project()) if table else {}


def shared(environ: "Mapping[str, str]", directory: str) -> "Settings":
    """Return what the user's file says, and the site's where that says nothing.

    :param directory: of the lock file, as a prefix: there an environment is that they name by a relative path
    :raises UsageError: one cannot be read, or makes no sense
    """
    named = environ.get(SITE_VARIABLE, "")
    place = named or SITE
    site = _of_file(place, named=bool(named))
    asks = site.pop(USERS, True)
    if not isinstance(asks, bool):
        raise options.usage_error(f"`{USERS}` in `{place}` has to be true or false")
    settings = _shared(site, place, environ)
    path = _users(environ) if asks else ""
    if path:
        settings = options.over(_shared(_of_file(path), path, environ), settings)
    env = settings.get("env")
    if isinstance(env, str):
        settings["env"] = beside(directory, env)
    return settings


def _users(environ: "Mapping[str, str]") -> str:
    """Return where the user's file would be; empty if there is no home."""
    base, home = environ.get("XDG_CONFIG_HOME", ""), home_of(environ)
    if core.is_absolute(base):  # a relative one is to be ignored (XDG Base Directory Specification)
        return f"{base}/{FILE}"
    return f"{home.rstrip('/')}/.config/{FILE}" if home else ""


def _of_file(path: str, *, named: bool = False) -> "dict[str, object]":
    """Read a file that has nothing but our options; empty if it is not there.

    The home that a job inherits may be somebody else's, as under `sudo -u`: what may not be looked at is not there.

    :param named: it has to be there
    :raises UsageError: it cannot be read or parsed
    """
    try:
        data = reading.content(path)
    except OSError as error:
        if not named and isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
            return {}
        raise options.usage_error(f"cannot read `{path}`: {error.strerror}", hint=LEFT_OUT) from error
    table = plain_table(data, everywhere=True)
    return dict(_parsed(data, path) if table is None else table)


def _shared(table: "Mapping[str, object]", path: str, environ: "Mapping[str, str]") -> "Settings":
    """Return the options in a file that is not a project's."""
    if not table:
        return {}
    settings = options.from_table(table, f"`{path}`", options.in_shared_files())
    expand(settings, environ, path)
    for key in ("cache_dir", "cache_fallback", "find_links"):
        value = settings.get(key, [])
        for item in value if isinstance(value, list) else [str(value)]:
            if not (core.is_absolute(item) or item.startswith("~") or "://" in item):
                raise options.usage_error(f"`{key.replace('_', '-')}` in `{path}` has to be an absolute path: `{item}`")
    return settings


def expand(settings: "Settings", environ: "Mapping[str, str]", path: str) -> None:
    """Replace `${NAME}` in what a file says by environment variables, as in requirements files.

    :raises UsageError: one is not set
    """

    def expanded(text: str) -> str:
        before, found, rest = text.partition("${")
        if not found:
            return text
        name, closed, after = rest.partition("}")
        if not closed or not name.replace("_", "a").isalnum() or not name.isascii():
            return before + found + expanded(rest)
        if name not in environ:
            hint = f"set it, as in: `export {name}=/path`"
            raise options.usage_error(f"`${{{name}}}` in `{path}`: there is no such variable", hint=hint)
        return before + environ[name] + expanded(after)

    _each(settings, tuple(settings), expanded)


def _each(settings: "Settings", keys: "tuple[str, ...]", change: "Callable[[str], str]") -> None:
    for key in keys:
        value = settings.get(key)
        if isinstance(value, str):
            settings[key] = change(value)
        elif isinstance(value, list):
            settings[key] = [change(item) for item in value]


def plain_table(data: bytes, *, everywhere: bool = False) -> "Mapping[str, object] | None":
    """Read a `[tool.envsync]` that holds nothing but one-line strings and booleans, without a TOML parser.

    :param everywhere: all of the file is such a table
    :returns: the table, empty if there surely is none, or None if only a TOML parser can tell
    """
    if b'"""' in data or b"'''" in data or b"\\" in data:
        return None
    table: dict[str, object] = {}
    inside = everywhere
    for raw in data.decode("utf-8", "replace").split("\n"):  # nothing else ends a line in TOML
        line = raw.strip()
        if line.startswith("["):
            if everywhere:
                return None
            squeezed = line.replace(" ", "").replace("\t", "")
            inside = line == "[tool.envsync]"
            if not inside and ("envsync" in line or squeezed == "[tool]"):
                return None
        elif not inside:
            if "envsync" in line:
                return None
        elif line and not line.startswith("#"):
            name, _, value = (part.strip() for part in line.partition("="))
            if not name.replace("-", "").isalnum():
                return None
            if value in ("true", "false"):
                table[name] = value == "true"
            elif len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" and value.count(value[0]) == 2:
                table[name] = value[1:-1]
            else:
                return None
    return table


def _parsed(data: bytes, path: str, *names: str) -> "Mapping[str, object]":
    """Return a table of a TOML file, by the names that lead to it; empty if there is none."""
    import tomllib

    try:
        table: object = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise options.usage_error(f"cannot parse `{path}`: {error}", hint=None if names else LEFT_OUT) from error
    for name in names:
        table = table.get(name, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise options.usage_error(f"`{'.'.join(names)}` in `{path}` has to be a table")
    return table


def anchor(table: "Settings", directory: str) -> None:
    """Make the paths in `[tool.envsync]` relative to its file instead of the working directory."""
    _each(table, PATHS, lambda path: beside(directory, path))


def beside(directory: str, path: str) -> str:
    return path if core.is_absolute(path) or is_at_home(path) or "://" in path else directory + path


def at_home(settings: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Replace a leading `~` in paths as shells do, which see it neither in a file nor in `--env=~/x`.

    On Windows, backslashes become the slashes that envsync writes everywhere.

    :raises UsageError: there is one, and HOME is no absolute path
    """

    def placed(path: str) -> str:
        path = core.slashed(path)
        return below_home(path, environ) if is_at_home(path) else path

    _each(settings, PATHS, placed)
    return settings


def filled(settings: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Replace `{user}` and `{host}` where envsync writes: one environment for each, on a disk that all share.

    :raises UsageError: the user has a name that cannot be part of a path
    """

    def fill(path: str) -> str:
        if "{user}" in path:
            path = path.replace("{user}", _user(environ))
        return path.replace("{host}", core.host()) if "{host}" in path else path

    _each(settings, OWN_PLACES, fill)
    return settings


def _user(environ: "Mapping[str, str]") -> str:
    """Name the user as Python's own `getpass.getuser` does: by LOGNAME or USER, else by the database of users."""
    name = environ.get("LOGNAME") or environ.get("USER") or environ.get("USERNAME", "")
    name = name or core.user_name()
    if core.has_directory(name) or name in ("", ".", ".."):
        raise options.usage_error(f"`{{user}}` cannot stand for `{name}`: set LOGNAME to a name without a slash")
    return name


def is_at_home(path: str) -> bool:
    return path == "~" or path.startswith("~/")


def home_of(environ: "Mapping[str, str]") -> str:
    """Return the home that a process was given; empty if that is none, or no absolute path."""
    home = core.slashed(environ.get(core.HOME, ""))
    return home if core.is_absolute(home) else ""


def below_home(path: str, environ: "Mapping[str, str]") -> str:
    home = home_of(environ)
    if not home:
        state = "no absolute path" if environ.get(core.HOME) else "not set"
        raise options.usage_error(f"`{path}` is below {core.HOME}, which is {state}")
    return home.rstrip("/") + path[1:]
