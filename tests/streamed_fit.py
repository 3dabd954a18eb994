"""``mtbkd`` as a process of its own that says how many rows its windows have read, and may die while it reads one.

``python streamed_fit.py DIES_AT ARGUMENTS``: at the window of this number, counted from 0 in this process, it is gone
without a word; -1 for never.
"""

import os
import sys


def run(dies_at: int, arguments: list[str]) -> None:
    """Run the command with windows that count, and die."""
    # Not before: the command joins the other processes when it is imported.
    from mtbkd_jax.cli import main
    from mtbkd_jax.windows import UnlabelledRows

    read_rows = UnlabelledRows.read
    num_rows = []

    def read(self, places):
        if len(num_rows) == dies_at:
            os._exit(137)
        num_rows.append(len(places))
        return read_rows(self, places)

    UnlabelledRows.read = read
    main(arguments)
    print("rows of windows:", sorted(set(num_rows)), flush=True)


if __name__ == "__main__":
    # Without its first argument, since the command looks at what is left before it is told.
    run(int(sys.argv.pop(1)), sys.argv[1:])
