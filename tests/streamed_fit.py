"""``mtbkd`` as a process of its own that says how many rows its windows have read, and may die while it reads one.

``python streamed_fit.py DIES_AT ARGUMENTS``: at the window of this number, counted from 0 in this process, it is gone
without a word; -1 for never.
"""

import os
import sys

DIES_AT = int(sys.argv.pop(1))

from mtbkd_jax.cli import main  # noqa: E402, joins the other processes
from mtbkd_jax.windows import UnlabelledRows  # noqa: E402

read_rows = UnlabelledRows.read
num_rows = []


def read(self, places):
    """Count, and die."""
    if len(num_rows) == DIES_AT:
        os._exit(137)
    num_rows.append(len(places))
    return read_rows(self, places)


UnlabelledRows.read = read
main(sys.argv[1:])
print("rows of windows:", sorted(set(num_rows)), flush=True)
