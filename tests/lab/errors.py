"""The one exception of the lab."""


class LabError(Exception):
    """The lab cannot do what was asked; the message says what and, where known, what to do about it."""
