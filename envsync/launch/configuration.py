"""The options that files give: `[tool.envsync]` in a pyproject.toml.

Read without a TOML parser where it is plain: one-line strings and booleans. `tomllib` costs a launch 8 ms.
"""

from envsync.launch import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from envsync.launch.options import Settings


def table_of(data: bytes, path: str) -> "Settings":
    """Return what `[tool.envsync]` says in a pyproject.toml; empty if there is none."""
    if b"envsync" not in data:
        return {}
    table = plain_table(data)
    if table is None:
        table = _parsed_table(data, path)
    return options.from_table(table, path)


def plain_table(data: bytes) -> "Mapping[str, object] | None":
    """Read a `[tool.envsync]` that holds nothing but one-line strings and booleans, without a TOML parser.

    :returns: the table, empty if there surely is none, or None if only a TOML parser can tell
    """
    if b'"""' in data or b"'''" in data or b"\\" in data:
        return None
    table: dict[str, object] = {}
    inside = False
    for raw in data.decode("utf-8", "replace").split("\n"):  # nothing else ends a line in TOML
        line = raw.strip()
        if line.startswith("["):
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


def _parsed_table(data: bytes, path: str) -> "Mapping[str, object]":
    import tomllib

    try:
        table: object = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise options.usage_error(f"cannot parse `{path}`: {error}") from error
    for name in ("tool", "envsync"):
        table = table.get(name, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise options.usage_error(f"`tool.envsync` in `{path}` has to be a table")
    return table


def anchor(table: "Settings", directory: str) -> None:
    """Make the paths in `[tool.envsync]` relative to its file instead of the working directory."""
    for key in ("lock", "env", "cache_dir", "cache_fallback", "find_links"):
        value = table.get(key)
        if isinstance(value, str):
            table[key] = beside(directory, value)
        elif isinstance(value, list):
            table[key] = [beside(directory, item) for item in value]


def beside(directory: str, path: str) -> str:
    return path if path.startswith("/") or is_at_home(path) or "://" in path else directory + path


def at_home(settings: "Settings", environ: "Mapping[str, str]") -> "Settings":
    """Replace a leading `~` in paths as shells do, which see it neither in a file nor in `--env=~/x`.

    :raises UsageError: there is one, and HOME is no absolute path
    """
    for key in ("lock", "project", "env", "cache_dir", "cache_fallback", "find_links"):
        value = settings.get(key)
        if isinstance(value, str) and is_at_home(value):
            settings[key] = below_home(value, environ)
        elif isinstance(value, list):
            settings[key] = [below_home(item, environ) if is_at_home(item) else item for item in value]
    return settings


def is_at_home(path: str) -> bool:
    return path == "~" or path.startswith("~/")


def below_home(path: str, environ: "Mapping[str, str]") -> str:
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        raise options.usage_error(f"`{path}` is below HOME, which is {'no absolute path' if home else 'not set'}")
    return home.rstrip("/") + path[1:]
