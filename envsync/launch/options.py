"""The options of `run` and `sync`: one table for the command line, `ENVSYNC_*`, `[tool.envsync]` and the library.

The fast lane parses a well-formed command line with this table alone. Whatever it does not understand (help, an
unknown option) is left to click, whose options are built from the same table (`envsync.cli.main`).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from envsync.errors import UsageError

    Value = str | bool | float | list[str]
    Settings = dict[str, Value]


def usage_error(message: str, *, hint: str | None = None) -> "UsageError":
    from envsync.errors import UsageError  # errors cost the fast lane as much as reading two files

    return UsageError(message, hint=hint)


FLAG, TEXT, LIST, SECONDS = "flag", "text", "list", "seconds"


class Option:
    """One option.

    :param name: as in `find-links`; the variable is ENVSYNC_FIND_LINKS, the key in `settings` find_links
    :param kind: FLAG, TEXT, LIST (may be given several times) or SECONDS
    :param choices: the values allowed, if not any
    :param shapes: "target" if the option decides what is installed and so belongs to the digest, "source" if it
        does so only for references without a hash, "" if it decides neither
    :param argument: what the library calls it, if not `key`; a flag of another name is the opposite there
    :param is_table: of a LIST: it may also be a table of texts, each of which counts as `key=value`
    :param negation: the flag that takes it back on the command line, if not `--no-` and its name
    :param uv: uv's variables that say the same of a project of uv's; the first that is set counts
    """

    __slots__ = (
        "argument",
        "choices",
        "help",
        "is_table",
        "key",
        "kind",
        "metavar",
        "name",
        "negation",
        "shapes",
        "short",
        "uv",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        help: str,  # noqa: A002
        *,
        metavar: str = "",
        choices: tuple[str, ...] = (),
        shapes: str = "",
        short: str = "",
        argument: str = "",
        negation: str = "",
        uv: tuple[str, ...] = (),
        is_table: bool = False,
    ) -> None:
        self.name = name
        self.key = name.replace("-", "_")
        self.kind = kind
        self.help = help
        self.metavar = metavar
        self.choices = choices
        self.shapes = shapes
        self.short = short
        self.is_table = is_table
        self.argument = argument or self.key
        self.uv = uv
        self.negation = ""
        """What takes back on the command line what a variable or a file has set; empty if they cannot set it."""
        if kind == FLAG and self.key not in ONLY_ON_THE_COMMAND_LINE:
            self.negation = negation or f"--no-{name}"

    @property
    def variable(self) -> str:
        return "ENVSYNC_" + self.key.upper()


ONLY_ON_THE_COMMAND_LINE = frozenset(
    {"quiet", "verbose", "dry_run", "json", "exit_code", "repair", "yes", "keep", "no_size"}
)
"""`ENVSYNC_JSON=1` in a job's environment would change what scripts read."""
NOT_IN_A_FILE = frozenset({"project", "directory", "no_config", "trusted_builder"}) | ONLY_ON_THE_COMMAND_LINE
"""What tells where the file is, and what is not for a project to say."""
NOT_IN_THE_LIBRARY = frozenset({"lock", "active", "frozen", "no_sync"}) | NOT_IN_A_FILE
"""What a program says otherwise, or has no need to say."""
CHOICE = (
    Option("extra", LIST, "An extra of the lock file.", metavar="NAME", shapes="target", argument="extras"),
    Option("all-extras", FLAG, "All extras.", shapes="target"),
    Option("no-extra", LIST, "None of --all-extras.", metavar="NAME", shapes="target", argument="no_extras"),
    Option("group", LIST, "A dependency group of the lock file.", metavar="NAME", shapes="target", argument="groups"),
    Option(
        "no-group",
        LIST,
        "Not this group, whatever else asks for it.",
        metavar="NAME",
        shapes="target",
        argument="no_groups",
        uv=("UV_NO_GROUP",),
    ),
    Option(
        "only-group",
        LIST,
        "This group, and not the project with what it requires.",
        metavar="NAME",
        shapes="target",
        argument="only_groups",
    ),
    Option("all-groups", FLAG, "All dependency groups.", shapes="target"),
    Option(
        "no-default-groups",
        FLAG,
        "Not the groups that are installed if nothing is said.",
        shapes="target",
        negation="--default-groups",
        uv=("UV_NO_DEFAULT_GROUPS",),
    ),
    Option("dev", FLAG, "As --group dev, if there is such a group.", negation="--no-dev", uv=("UV_DEV",)),
    Option("no-dev", FLAG, "As --no-group dev.", negation="--dev", uv=("UV_NO_DEV",)),
    Option("only-dev", FLAG, "As --only-group dev."),
    Option("package", LIST, "A member of the workspace.", metavar="NAME", shapes="target", argument="packages"),
    Option("all-packages", FLAG, "All members of the workspace.", shapes="target"),
    Option(
        "no-editable",
        FLAG,
        "Install copies of the project and of other local trees, not links to them.",
        shapes="target",
        argument="editable",
        negation="--editable",
        uv=("UV_NO_EDITABLE",),
    ),
    Option(
        "no-install-project",
        FLAG,
        "Not the project itself, only what it requires.",
        shapes="target",
        negation="--install-project",
        uv=("UV_NO_INSTALL_PROJECT",),
    ),
    Option(
        "no-install-workspace",
        FLAG,
        "No member of the workspace, only what they require.",
        shapes="target",
        negation="--install-workspace",
        uv=("UV_NO_INSTALL_WORKSPACE",),
    ),
    Option(
        "no-install-package",
        LIST,
        "Not this package, only what it requires.",
        metavar="NAME",
        shapes="target",
        argument="no_install_packages",
    ),
)
"""What of a lock file is to be installed, in uv's words (`envsync.lockfile.choice`)."""
CONTRARY: "Mapping[str, tuple[str, ...]]" = {
    "extra": ("all_extras", "only_group", "only_dev"),
    "all_extras": ("extra", "only_group", "only_dev"),
    "group": ("only_group", "only_dev"),
    "only_group": ("group", "all_groups", "dev", "extra", "all_extras"),
    "all_groups": ("only_group", "only_dev"),
    "dev": ("no_dev", "only_group"),
    "no_dev": ("dev", "only_dev"),
    "only_dev": ("group", "all_groups", "no_dev", "extra", "all_extras"),
    "package": ("all_packages",),
    "all_packages": ("package",),
    "env": ("active",),
    "active": ("env",),
    "locked": ("frozen",),
    "frozen": ("locked",),
}
"""What makes no sense together, as uv has it. What is said nearer to the command wins over what is said elsewhere."""
BUILD = (
    Option("no-build", FLAG, "Build nothing: refuse what has no wheel.", negation="--build", uv=("UV_NO_BUILD",)),
    Option(
        "no-build-package",
        LIST,
        "Do not build this package.",
        metavar="NAME",
        argument="no_build_packages",
        uv=("UV_NO_BUILD_PACKAGE",),
    ),
    Option(
        "no-binary",
        FLAG,
        "Take no wheels: build everything.",
        shapes="target",
        negation="--binary",
        uv=("UV_NO_BINARY",),
    ),
    Option(
        "no-binary-package",
        LIST,
        "Take no wheel of this package: build it.",
        metavar="NAME",
        shapes="target",
        argument="no_binary_packages",
        uv=("UV_NO_BINARY_PACKAGE",),
    ),
    Option(
        "no-build-isolation",
        FLAG,
        "Build with what is installed beside, not in environments of their own.",
        shapes="target",
        negation="--build-isolation",
        uv=("UV_NO_BUILD_ISOLATION",),
    ),
    Option(
        "no-build-isolation-package",
        LIST,
        "The same for this package.",
        metavar="NAME",
        shapes="target",
        argument="no_build_isolation_packages",
        uv=("UV_NO_BUILD_ISOLATION_PACKAGE",),
    ),
    Option(
        "config-setting",
        LIST,
        "A setting for build backends; for those of one package: NAME:KEY=VALUE.",
        metavar="KEY=VALUE",
        shapes="target",
        argument="config_settings",
        is_table=True,
    ),
    Option(
        "build-constraint",
        LIST,
        "What build backends may require at most, as in setuptools<81.",
        metavar="REQUIREMENT",
        shapes="target",
        argument="build_constraints",
    ),
    Option(
        "build-key",
        TEXT,
        "What else tells builds apart here, as in the name of a kind of node.",
        metavar="TEXT",
        shapes="target",
    ),
    Option("build-with", TEXT, "What installs build requirements.", choices=("pip", "uv")),
    Option(
        "trusted-builder",
        LIST,
        "A user whose built wheels in a shared cache are taken, besides one's own and root's.",
        metavar="USER",
    ),
)
"""How what has no wheel is built (`envsync.building`)."""
AS_WRITTEN = frozenset({"config_setting", "build_constraint"})
"""Lists of what is no name: capitals and order count, as backends are given them."""
REQUEST = (
    Option(
        "lock",
        TEXT,
        "The lock file. Default: the project's own here, or in the nearest parent that has one.",
        metavar="FILE",
    ),
    Option("project", TEXT, "Look for the lock file here and above. Default: the working directory.", metavar="DIR"),
    Option("directory", TEXT, "Change to this directory first.", metavar="DIR"),
    Option("no-config", FLAG, "Read neither the user's envsync.toml nor the site's.", negation="--config"),
    Option(
        "env",
        TEXT,
        "The environment. Default: .venv beside the lock file. {digest}, {python}, {user} and {host} are replaced.",
        metavar="DIR",
        uv=("UV_PROJECT_ENVIRONMENT",),
    ),
    Option("active", FLAG, "The environment that is active, by VIRTUAL_ENV, if one is."),
    Option(
        "python", TEXT, "The Python to make the environment with.", metavar="SPEC", shapes="target", uv=("UV_PYTHON",)
    ),
    *CHOICE,
    *BUILD,
    Option("locked", FLAG, "Fail if the lock file is not what the project asks for.", uv=("UV_LOCKED",)),
    Option("frozen", FLAG, "Take the lock file as it is, which is what is done anyway.", uv=("UV_FROZEN",)),
    Option("inexact", FLAG, "Leave what the lock file does not name.", shapes="target", argument="exact"),
    Option(
        "index-url",
        LIST,
        "An index to find wheels on.",
        metavar="URL",
        shapes="source",
        argument="index_urls",
        uv=(
            "UV_DEFAULT_INDEX",
            "UV_INDEX_URL",
        ),
    ),
    Option(
        "find-links",
        LIST,
        "A directory or page that holds wheels.",
        metavar="DIR",
        shapes="source",
        uv=("UV_FIND_LINKS",),
    ),
    Option(
        "mirrors",
        LIST,
        "Where to take from what is locked to be elsewhere.",
        metavar="URL=URL",
        shapes="source",
        is_table=True,
    ),
    Option("no-index", FLAG, "Use no index, only --find-links and what is cached.", shapes="source"),
    Option("offline", FLAG, "Use no network at all.", uv=("UV_OFFLINE",)),
    Option("cache-dir", TEXT, "The cache.", metavar="DIR"),
    Option("cache-fallback", TEXT, "Where to keep what a cache lacks that cannot be written to.", metavar="DIR"),
    Option(
        "link-mode",
        TEXT,
        "How files come from the cache: auto clones where it can, else links, else copies.",
        choices=("auto", "clone", "hardlink", "copy", "symlink"),
        uv=("UV_LINK_MODE",),
    ),
    Option(
        "compile-bytecode",
        FLAG,
        "Compile all modules, once for each Python, in the cache.",
        shapes="target",
        uv=("UV_COMPILE_BYTECODE",),
    ),
)
HOW = (
    Option("durable", FLAG, "Force what is installed to the disk, so that a lost node leaves no broken environment."),
    Option("allow-empty", FLAG, "Remove all packages if the lock file asks for none. Default: refuse to."),
)
WAIT = (
    Option("timeout", SECONDS, "How long to wait for others. Default: no limit.", metavar="SECONDS"),
    Option("busy", TEXT, "What to do while commands run in the environment.", choices=("wait", "fail", "ignore")),
)
COMMON = (
    Option("quiet", FLAG, "Say nothing but errors.", short="q"),
    Option("verbose", FLAG, "Say more.", short="v"),
)
WITHIN = (
    Option("isolated", FLAG, "Let the command see no other packages: neither those of PYTHONPATH nor the user's own."),
    Option(
        "no-sync",
        FLAG,
        "Take the environment as it is, whatever it was synced for.",
        negation="--sync",
        uv=("UV_NO_SYNC",),
    ),
)
PREPARE = REQUEST + HOW + WAIT + COMMON
RUN = PREPARE + WITHIN
SYNC = (
    *PREPARE,
    Option("dry-run", FLAG, "Say what would change, change nothing."),
    Option("json", FLAG, "Print the outcome as one JSON object."),
)
STATUS = (
    *REQUEST,
    Option("json", FLAG, "Print the status as one JSON object."),
    Option("exit-code", FLAG, "Exit with 1 if the environment is not current."),
)
CHECK = (
    *PREPARE,
    Option("repair", FLAG, "Restore what is missing or changed, from the cache."),
    Option("json", FLAG, "Print what was found as one JSON object."),
)
_PLACES = ("lock", "project", "directory", "env", "active", "cache_dir", "cache_fallback")
DOCTOR = (
    *(option for option in REQUEST if option.key in _PLACES),
    Option("json", FLAG, "Print what was found as one JSON object."),
)
CACHE = (
    Option("cache-dir", TEXT, "The cache.", metavar="DIR"),
    Option("json", FLAG, "Print the outcome as one JSON object."),
)
CLEAN = (
    *CACHE,
    Option("dry-run", FLAG, "Say what would go, remove nothing."),
    Option("timeout", SECONDS, "How long to wait for syncs that use the cache. Default: no limit.", metavar="SECONDS"),
    Option("quiet", FLAG, "Say nothing but errors.", short="q"),
)
PRUNE = (
    *CLEAN,
    Option("older-than", TEXT, "Remove what was not used for so long, as in 30d, 12h or 90m.", metavar="AGE"),
    Option("max-size", TEXT, "Remove what was used least lately until no more than this is left.", metavar="SIZE"),
    Option("unused-for", TEXT, "Remove what nobody has used or read for so long, as in 90d.", metavar="AGE"),
)
ANYWHERE = (*RUN, *PRUNE[-3:])
"""What may be said in `ENVSYNC_*` and in `[tool.envsync]`, besides what only the command line may say."""


def in_a_project() -> "list[Option]":
    """Return what a project's file may say."""
    return [option for option in ANYWHERE if option.key not in NOT_IN_A_FILE]


def in_shared_files() -> "list[Option]":
    """Return what a user's or a site's file may say: not what is to be installed, nor where a project is."""
    of_a_project = {"lock", *(option.key for option in CHOICE), *NOT_IN_A_FILE} - {"trusted_builder"}
    return [option for option in ANYWHERE if option.key not in of_a_project]


def parse(arguments: "Sequence[str]", options: "Iterable[Option]") -> "tuple[Settings, list[str]] | None":
    """Parse options up to the first word that is none, as in `--lock FILE -- python job.py`.

    :returns: the settings and the words after them, or None for what needs the whole command line interface
    :raises UsageError: a value is missing or not allowed
    """
    by_flag = {"--" + option.name: option for option in options}
    by_flag.update({"-" + option.short: option for option in options if option.short})
    settings: Settings = {}
    words = list(arguments)
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            return settings, words[position:]
        if not word.startswith("-") or word == "-":
            return settings, words[position - 1 :]
        flag, equals, text = word.partition("=")
        option = by_flag.get(flag) or _negated(flag, options)
        if option is None or (option.kind == FLAG and equals):
            return None
        if option.kind == FLAG:
            settings[option.key] = flag in by_flag
            if option.negation in by_flag:  # `--dev` and `--no-dev`: the last one counts
                settings.pop(by_flag[option.negation].key, None)
            continue
        if not equals:
            if position == len(words):
                raise usage_error(f"option `{flag}` needs a value ({option.metavar or '|'.join(option.choices)})")
            text = words[position]
            position += 1
        _add(settings, option, text, f"option `{flag}`")
    return settings, []


def _negated(flag: str, options: "Iterable[Option]") -> Option | None:
    """Return the option that a word such as `--no-offline` takes back."""
    return next((option for option in options if option.negation == flag), None)


def over(nearer: "Settings", farther: "Settings") -> "Settings":
    """Let what is said nearer to the command win over what is said elsewhere, by the same option or by a contrary one.

    :raises UsageError: it contradicts itself
    """
    merged = {
        key: value
        for key, value in farther.items()
        if not any(nearer.get(contrary) for contrary in CONTRARY.get(key, ()))
    }
    merged.update(nearer)
    _check(merged)
    return merged


def _check(settings: "Settings") -> None:
    for key, value in settings.items():
        for contrary in CONTRARY.get(key, ()) if value else ():
            if settings.get(contrary):
                one, other = (name.replace("_", "-") for name in (key, contrary))
                raise usage_error(f"`{one}` and `{other}` contradict each other: say only one of them")


def folded(settings: "Settings") -> "Settings":
    """Say what of a lock file is to be installed, each choice in one way but for the spelling and order of names."""
    chosen = {option.key: settings[option.key] for option in CHOICE if settings.get(option.key)}
    for key, lists in (("dev", "group"), ("no_dev", "no_group"), ("only_dev", "only_group")):
        if chosen.pop(key, False):
            names = chosen.get(lists, [])
            assert isinstance(names, list)
            chosen[lists] = [*names, "dev"]
    extras = chosen.get("extra")
    if isinstance(extras, list):
        chosen["extra"] = [name for extra in extras for name in extra.split(",")]
    return chosen


def normalized(name: str) -> str:
    """Spell the name of a package, an extra or a group as all its spellings are compared."""
    name = name.lower().replace("_", "-").replace(".", "-")
    while "--" in name:
        name = name.replace("--", "-")
    return name


def _add(settings: "Settings", option: Option, text: str, origin: str) -> None:
    if option.kind == LIST:
        values = settings.setdefault(option.key, [])
        assert isinstance(values, list)
        values.append(text)
    else:
        settings[option.key] = convert(option, text, origin)


def convert(option: Option, text: str, origin: str) -> "Value":
    """Turn the text of one value into what the settings hold.

    :param origin: where it was said, for the message
    :raises UsageError: it is not a number, or not one of the choices
    """
    if option.kind == SECONDS:
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            raise usage_error(f"{origin}: `{text}` is not a number of seconds")
        return seconds
    if option.kind == FLAG:
        lowered = text.strip().lower()
        if lowered in ("1", "true", "yes", "on", "t", "y"):
            return True
        if lowered in ("", "0", "false", "no", "off", "f", "n"):
            return False
        raise usage_error(f"{origin}: `{text}` is neither true nor false")
    if option.choices and text not in option.choices:
        raise usage_error(f"{origin}: `{text}` is not one of {', '.join(option.choices)}")
    return text


def from_variables(environ: "Mapping[str, str]", *, of_uv: bool = False) -> "Settings":
    """Read `ENVSYNC_*`. Lists are separated by white space; an empty variable counts as unset.

    :param of_uv: read uv's variables instead
    """
    settings: Settings = {}
    for option in ANYWHERE:
        for variable in option.uv if of_uv else (option.variable,):
            text = environ.get(variable)
            if text and option.key not in ONLY_ON_THE_COMMAND_LINE and option.key not in settings:
                origin = f"environment variable `{variable}`"
                several = (_as_uv(text) if of_uv else text).split()
                settings[option.key] = several if option.kind == LIST else convert(option, text, origin)
    return settings


def _as_uv(text: str) -> str:
    """Separate a list of uv's by white space, and leave out the name of an index, as in `NAME=URL`."""
    name, _, url = text.partition("=")
    return url if "://" in url and "/" not in name else text.replace(",", " ")


def from_table(table: "Mapping[str, object]", where: str, known: "Iterable[Option]") -> "Settings":
    """Read a table of a file whose keys are the options' names.

    :param where: it is, for messages
    :raises UsageError: a key is unknown or a value has the wrong type
    """
    by_name = {option.name: option for option in known}
    settings: Settings = {}
    for name, value in table.items():
        option = by_name.get(name)
        origin = f"`{name}` in {where}"
        if option is None:
            hint = f"`envsync sync --help` says more; known are: {', '.join(sorted(by_name))}"
            raise usage_error(f"{origin} is not an option", hint=hint)
        settings[option.key] = _from_toml(option, value, origin)
    return settings


def _from_toml(option: Option, value: object, origin: str) -> "Value":
    if option.kind == LIST:
        if isinstance(value, str):
            return [value]
        if option.is_table and isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
            return [f"{name}={item}" for name, item in value.items()]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return list(value)
        raise usage_error(f"{origin} has to be a list of strings")
    if option.kind == FLAG:
        if not isinstance(value, bool):
            raise usage_error(f"{origin} has to be true or false")
        return value
    if option.kind == SECONDS and isinstance(value, (int, float)) and not isinstance(value, bool):
        return convert(option, str(value), origin)
    if not isinstance(value, str):
        raise usage_error(f"{origin} has to be a string")
    return convert(option, value, origin)


def checked(values: "Mapping[str, object]") -> "Settings":
    """Check values that a program gave; None, false and empty ones count as not given.

    :raises UsageError: a value is not allowed
    """
    settings: Settings = {}
    for option in RUN:
        value = values.get(option.key)
        if value is not None and value is not False and value != []:
            settings[option.key] = _from_toml(option, value, f"`{option.key}`")
    return settings
