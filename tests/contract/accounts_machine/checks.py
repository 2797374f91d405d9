"""What the machine checks."""


class BrokenError(AssertionError):
    """Something that must always hold was violated."""


def check(holds: bool, otherwise: str) -> None:
    """Check that a condition holds.

    Raises:
        BrokenError: It does not.
    """
    if not holds:
        raise BrokenError(otherwise)
