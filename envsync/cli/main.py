"""The command line, for all that the fast lane does not handle: `sync`, help, and what is said wrongly."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from envsync import __version__
from envsync.cli import bundle_options, cache, cache_options, env, env_options, shim_options, tell
from envsync.cli.run import run
from envsync.errors import UsageError, hints
from envsync.launch import fast_lane, options
from envsync.launch.options import FLAG, LIST, Option


class Command(click.Command):
    """A command whose summary is a whole sentence, on two lines where it has to be."""

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002
        return (self.help or "").strip().partition(".")[0] + "."


class Group(Command, click.Group):
    """Commands that belong together."""


def main(arguments: Sequence[str]) -> int:
    """Run one command line. Returns the exit status unless the process becomes the command."""
    try:
        status = envsync_command.main(list(arguments), prog_name="envsync", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return tell.usage_status(arguments)
    except click.ClickException as error:
        raise _as_ours(error, arguments) from None
    except click.Abort as abort:  # what click makes of it; SIGTERM is to stay SIGTERM
        raise abort.__cause__ if isinstance(abort.__cause__, KeyboardInterrupt) else KeyboardInterrupt() from None
    return status if isinstance(status, int) else 0


def _as_ours(error: click.ClickException, arguments: Sequence[str]) -> UsageError:
    """Say what click says in the words and the form of all our errors."""
    path = tell.command_of(arguments)
    if isinstance(error, click.NoSuchOption):
        problem = f"`{path}` has no option `{error.option_name}`"
        similar = [f"`{name}`" for name in error.possibilities or () if not name.startswith("--no-")][:2]
        return UsageError(problem + (f"; perhaps {' or '.join(similar)} is meant" if similar else ""))
    if isinstance(error, click.MissingParameter):
        return UsageError("no command is given that is to run in the environment", hint=hints.COMMAND)
    problem = error.format_message().rstrip(".").replace("'", "`")
    return UsageError(problem[:1].lower() + problem[1:])


def _parameters(table: Sequence[Option]) -> list[click.Parameter]:
    parameters: list[click.Parameter] = []
    for option in table:
        names = [f"--{option.name}", option.key, *([f"-{option.short}"] if option.short else [])]
        if option.negation in {parameter.opts[0] for parameter in parameters}:
            continue  # `--no-dev`: the parameter of `--dev` has both
        if option.kind == FLAG:
            names[0] += f"/{option.negation}" if option.negation else ""
            parameters.append(click.Option(names, is_flag=True, default=None, help=option.help))
        else:
            parameters.append(
                click.Option(
                    names,
                    multiple=option.kind == LIST,
                    metavar=option.metavar or None,
                    type=click.Choice(option.choices) if option.choices else str,
                    help=option.help,
                )
            )
    return parameters


def _settings(table: Sequence[Option], given: dict[str, Any]) -> options.Settings:
    settings: options.Settings = {}
    by_flag = {f"--{option.name}": option for option in table}
    for option in table:
        value = given.get(option.key)
        if value is None or value == ():
            continue
        if value is False and option.negation in by_flag:
            settings[by_flag[option.negation].key] = True
            continue
        if option.kind == LIST:
            settings[option.key] = list(value)
        elif option.kind == FLAG:
            settings[option.key] = bool(value)
        else:
            settings[option.key] = options.convert(option, value, f"option `--{option.name}`")
    return settings


def _run(command: tuple[str, ...], **given: Any) -> NoReturn:
    """Make the environment current, then become COMMAND.

    COMMAND is looked up in the environment's bin first. It keeps this process's id; its exit status is its own.
    124: a wait timed out or was refused. 125: envsync failed. 126, 127: COMMAND cannot be run, was not found.
    """
    asked, environment, distrust, words = fast_lane.launch(_settings(options.RUN, given), list(command), os.environ)
    run(asked, environment, words, os.environ, distrust=distrust)


def _sync(**given: Any) -> int:
    """Make the environment current, and say what changed."""
    from envsync.cli.sync import sync

    return sync(_settings(options.SYNC, given))


def _check(**given: Any) -> int:
    """Verify every file of the environment by its hash. With --repair, restore what is missing or changed."""
    from envsync.cli.check import check

    return check(_settings(options.CHECK, given))


def _status(**given: Any) -> int:
    """Say whether the environment is current, and who syncs, waits and runs.

    Disturbs nobody.
    """
    from envsync.cli.status import status

    return status(_settings(options.STATUS, given))


def _doctor(**given: Any) -> int:
    """Find out what the filesystem of the environment can do, and what follows.

    Tries locks, links, renames and the clock in a directory of its own, and leaves nothing behind. Exits with 1 if
    syncing there would be refused or unsafe.
    """
    from envsync.cli.doctor import doctor

    return doctor(_settings(options.DOCTOR, given))


envsync_command = Group(
    "envsync",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a virtual environment match its lock file once, however many processes ask.",
    params=[
        click.Option(
            ["-V", "--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            help="Show the version.",
            callback=lambda ctx, _, value: _show_version(ctx) if value else None,
        )
    ],
)


def _show_version(ctx: click.Context) -> NoReturn:
    print(f"envsync {__version__} (Python {sys.version.split()[0]})")
    ctx.exit(0)


envsync_command.add_command(
    Command(
        "run",
        callback=_run,
        help=_run.__doc__,
        params=[
            *_parameters(options.RUN),
            click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED),
        ],
        context_settings={"allow_interspersed_args": False},
    )
)
envsync_command.add_command(Command("sync", callback=_sync, help=_sync.__doc__, params=_parameters(options.SYNC)))
envsync_command.add_command(
    Command("status", callback=_status, help=_status.__doc__, params=_parameters(options.STATUS))
)
envsync_command.add_command(Command("check", callback=_check, help=_check.__doc__, params=_parameters(options.CHECK)))
envsync_command.add_command(
    Command("doctor", callback=_doctor, help=_doctor.__doc__, params=_parameters(options.DOCTOR))
)


def _cache_command(name: str, function: Callable[[options.Settings], int], table: Sequence[Option]) -> click.Command:
    def call(**given: Any) -> int:
        return function(_settings(table, given))

    return Command(name, callback=call, help=function.__doc__, params=_parameters(table))


def _cache() -> click.Group:
    group = Group("cache", help="See, fill and shrink the cache, safely at any time.")
    for name, function, table in (
        ("dir", cache.directory, options.CACHE),
        ("size", cache.size, options.CACHE),
        ("add", cache.add, cache_options.ADD),
        ("clean", cache.remove_all, options.CLEAN),
        ("prune", cache.prune, options.PRUNE),
        ("verify", cache.verify, options.CACHE),
    ):
        group.add_command(_cache_command(name, function, table))
    return group


envsync_command.add_command(_cache())


def _env_command(
    name: str, function: Callable[..., int], table: Sequence[Option], argument: click.Argument
) -> click.Command:
    def call(**given: Any) -> int:
        named = given.pop(argument.name)
        return function(_settings(table, given), named)

    return Command(name, callback=call, help=function.__doc__, params=[*_parameters(table), argument])


def _env() -> click.Group:
    group = Group("env", help="See and remove environments that are named by {digest}.")
    template = click.Argument(["template"], default="", metavar="[TEMPLATE]")
    paths = click.Argument(["paths"], nargs=-1, required=True, metavar="PATH...")
    for name, function, table, argument in (
        ("list", env.listed, env_options.LIST, template),
        ("show", env.shown, env_options.SHOW, paths),
        ("prune", env.prune, env_options.PRUNE, template),
        ("remove", env.remove, env_options.REMOVE, paths),
    ):
        group.add_command(_env_command(name, function, table, argument))
    return group


envsync_command.add_command(_env())


def _make_bundle(context: click.Context, /, **given: Any) -> int | None:
    """Put everything that a lock file needs into one directory, to be used without an index, a network or a compiler.

    --python and --platform may be given several times: it is for each of these Pythons on each of these platforms.
    """
    if context.invoked_subcommand:
        return None
    from envsync.cli import bundle

    return bundle.make(_settings(bundle_options.MAKE, given))


def _verify_bundle(directory: str, **given: Any) -> int:
    """Compare all that a bundle has with its hashes. Exits with 1 if anything is damaged."""
    from envsync.cli import bundle

    return bundle.verify(directory, _settings(bundle_options.VERIFY, given))


def _prune_bundle(directory: str, **given: Any) -> int:
    """Remove from a bundle the wheels that no version of the last seven days names."""
    from envsync.cli import bundle

    return bundle.prune(directory, _settings(bundle_options.PRUNE, given))


def _bundle() -> click.Group:
    group = Group(
        "bundle",
        callback=click.pass_context(_make_bundle),
        help=_make_bundle.__doc__,
        params=_parameters(bundle_options.MAKE),
        invoke_without_command=True,
    )
    where = click.Argument(["directory"], metavar="DIR")
    for name, function, table in (
        ("verify", _verify_bundle, bundle_options.VERIFY),
        ("prune", _prune_bundle, bundle_options.PRUNE),
    ):
        parameters = [*_parameters(table), where]
        group.add_command(Command(name, callback=function, help=function.__doc__, params=parameters))
    return group


envsync_command.add_command(_bundle())


def _shim(path: str, command: tuple[str, ...], **given: Any) -> int:
    """Write a file that behaves as the Python of the environment, for programs that take the path of one.

    Each start of it makes the environment current, as run does. With COMMAND, it behaves as that instead. With
    --jupyter, it is a kernel of Jupyter. Nothing is synced before.
    """
    from envsync.cli.shim import shim

    return shim(_settings(shim_options.MAKE, given), path, command)


envsync_command.add_command(
    Command(
        "shim",
        callback=_shim,
        help=_shim.__doc__,
        params=[
            *_parameters(shim_options.MAKE),
            click.Argument(["path"], default="", metavar="[PATH]"),
            click.Argument(["command"], nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]"),
        ],
    )
)
