"""Hash sources as the Python that runs this does (PEP 552): a child of whoever packs bytecode.

Run as a script by the Python that the bytecode is for, isolated, Python 3.9 or newer; nothing of envsync can be
imported. It reads lines of JSON, `[directory, [file, ...]]`, and answers each with `[hash, ...]` in hexadecimal; null
stands for a file that cannot be read. Another Python may have another hash: which one it is, its build decides.
"""

from __future__ import annotations

import json
import sys
from importlib.util import source_hash


def main() -> None:
    """Answer each line until there is none."""
    for line in sys.stdin:
        directory, names = json.loads(line)
        print(json.dumps([_hash(f"{directory}/{name}") for name in names]))


def _hash(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return source_hash(file.read()).hex()
    except OSError:
        return None


if __name__ == "__main__":
    main()
