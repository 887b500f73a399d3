"""The two ways in which a run can end early, each with one line for the user."""


class HeadstartError(Exception):
    """Something went wrong that the user can mend; the text is the whole message."""


class RequestError(HeadstartError, ValueError):
    """The request itself was wrong: what was found, what was needed, what to do. Exit code 2."""


class StoreError(HeadstartError, OSError):
    """A stored file is not what its name promises: lost, damaged, or of another make."""
