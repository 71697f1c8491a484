"""The corpus of hostile wheels: what each tries, and what is to become of it.

    python tests/hostile/corpus.py DIR        makes the wheels, each in a directory of its own, for a look at them
    python tests/hostile/corpus.py --table    counts them by kind, in Markdown
    python tests/hostile/corpus.py --list     says what each tries and what becomes of it

`test_hostile.py` puts each of them through a sync.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent.parent)

from tests.hostile import names, places, records, scripts, sizes, structure
from tests.hostile.cases import Case

KINDS: dict[str, list[Case]] = {
    "names of members": names.cases(),
    "kinds, flags, headers, offsets": structure.cases(),
    "sizes and bombs": sizes.cases(),
    "identity and RECORD": records.cases(),
    "places and code": places.cases(),
    "entry points": scripts.cases(),
}
CASES = [case for cases in KINDS.values() for case in cases]


def write(case: Case, directory: Path) -> Path:
    """Make the wheel of a case."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / case.filename
    path.write_bytes(case.build())
    return path


def table() -> str:
    """Count the cases by kind, as a table in Markdown."""
    lines = ["| what is hostile | refused | accepted, as by pip |", "|---|---:|---:|"]
    refused = accepted = 0
    for kind, cases in KINDS.items():
        count = sum(case.refused is not None for case in cases)
        lines.append(f"| {kind} | {count} | {len(cases) - count} |")
        refused += count
        accepted += len(cases) - count
    return "\n".join([*lines, f"| **all** | **{refused}** | **{accepted}** |"])


def listing() -> str:
    """Say of each case what it tries and what becomes of it."""
    lines = []
    for kind, cases in KINDS.items():
        lines.append(f"\n{kind}\n")
        for case in cases:
            outcome = "accepted" if case.refused is None else f"refused: {case.refused}"
            lines.append(f"  {case.name:<40} {case.claim}\n  {'':<40} {outcome}")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Do what the command line asks."""
    if arguments == ["--table"]:
        print(table())
    elif arguments == ["--list"]:
        print(listing())
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        for case in CASES:
            write(case, Path(arguments[0]) / case.name)
        print(f"{len(CASES)} wheels in {arguments[0]}")
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
