"""Prepare an environment and run a program in it, from an ordinary script.

python plain_script.py pylock.toml .venv greet somebody
"""

import argparse
import subprocess
import sys

import envsync


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("lock", help="the lock file")
    parser.add_argument("env", help="the environment")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a program of the environment, and its arguments")
    arguments = parser.parse_args()
    try:
        # However many copies of this script start at once, one of them syncs and the others wait for it. Nobody
        # changes the environment before the block ends.
        with envsync.use(arguments.lock, env=arguments.env) as hold:
            print(f"{hold.result.outcome}: {hold.result.env}", flush=True)
            # The variables put the environment's programs first on PATH.
            return subprocess.run(arguments.command, env=hold.variables(), check=False).returncode
    except envsync.EnvsyncError as error:
        # One line says what went wrong; the hint, if there is one, says what to do.
        print(f"{error}\n{error.hint or ''}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
