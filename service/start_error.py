"""The error of a service that cannot start."""


class StartError(Exception):
    """The service cannot start. The text names the setting at fault."""
