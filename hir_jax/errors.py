"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A fault in what the user gave: a path, a file, a flag, an example.

    Its message says what was expected, what was found, where, and what to do. `main.py` prints it
    without a traceback and exits with code 2.
    """
