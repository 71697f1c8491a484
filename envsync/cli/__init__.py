"""For people: the command line, what it asks and what it says. Nothing imports it but `python -m envsync`.

One file a command, with the text that it prints. Start reading at `main`; `display` shows a sync, `tell` an error.
"""
