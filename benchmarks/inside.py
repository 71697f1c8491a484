"""What a command sees of the environment that it runs in. Run there as a script; fails if it is not the whole.

    inside.py DISTRIBUTIONS           as many distributions as that
    inside.py DISTRIBUTIONS FILES     and as many files, not counting bytecode and what envsync keeps aside

The first takes one listing; the second walks all of site-packages and is not for measuring time.
"""

from __future__ import annotations

import os
import sys


def distributions_in(site_packages: str) -> int:
    return sum(name.endswith(".dist-info") for name in os.listdir(site_packages))


def files_in(site_packages: str) -> int:
    count = 0
    for _, directories, names in os.walk(site_packages):
        directories[:] = [name for name in directories if name not in ("__pycache__", ".envsync")]
        count += len(names)
    return count


def site_packages_of(prefix: str) -> str:
    return "{}/lib/python{}.{}/site-packages".format(prefix, *sys.version_info[:2])


def main(wanted: list[str]) -> int:
    """Compare. Returns the exit status."""
    site_packages = site_packages_of(sys.prefix)
    for what, count, number in zip(("distributions", "files"), (distributions_in, files_in), wanted):  # noqa: B905
        seen = count(site_packages)
        if seen != int(number):
            sys.stderr.write(f"sees {seen} {what}, not {number}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
