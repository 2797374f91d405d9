"""Tables of plain text, for terminals.

ACCOUNT  BALANCE
acme        24.5
"""

from collections.abc import Sequence


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()
) -> str:
    """Return a table, without a line break at its end.

    Args:
        head: The names of the columns.
        rows: A cell for each column.
        numbers: The columns that are aligned on the right.
    """
    lines = [tuple(name.upper() for name in head), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(head, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )
