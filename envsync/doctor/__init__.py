"""`envsync doctor`: what a filesystem can and cannot do, and what follows for envsync.

`probe` tries it in a directory of its own and brings back plain `facts`; `judge` says what they mean.
"""

from envsync.doctor.facts import Facts
from envsync.doctor.judge import Verdict, is_safe, judge
from envsync.doctor.probe import Subject, examine

__all__ = ["Facts", "Subject", "Verdict", "examine", "is_safe", "judge"]
