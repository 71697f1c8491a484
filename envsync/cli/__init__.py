"""For people: the command line, what it asks and what it says. Nothing imports it but `python -m envsync`.

Start reading at `main`; `display` shows a sync, `tell` an error.
"""
