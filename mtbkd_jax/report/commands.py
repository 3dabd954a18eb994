"""The command that repeats a run, from what its configuration says."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtbkd_jax.selection import Budget

OUT = "NEW_DIRECTORY"
"""Stands for the directory of the run to be."""

_FIELDS = {"budget": Budget._fields}
"""Groups that a configuration holds as a list, being named tuples, with the names of their values."""

_WITHOUT_PREFIX = "distillation"
"""The group of ``mtbkd fit`` whose options have no prefix."""


def repeating_command(config: Mapping[str, Any]) -> str:
    r"""The command with every option that the result depends on, an option to a line.

    >>> print(repeating_command({"name": "digits", "num_labels": 100, "seed": 0}))
    mtbkd run digits --out NEW_DIRECTORY \
      --num-labels 100 \
      --seed 0
    """
    words = ["mtbkd", "run", config["name"]] if "name" in config else ["mtbkd", "fit"]
    options = {name: value for name, value in config.items() if name != "name"}
    lines = [[*words, "--out", OUT], *_options(options)]
    return " \\\n  ".join(shlex.join(map(str, line)) for line in lines)


def flat_options(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of every option, as the command line calls it."""
    for name, value in config.items():
        full = prefix + name.replace("_", "-")
        if name in _FIELDS:
            value = dict(zip(_FIELDS[name], value, strict=False))  # an older version may have known fewer
        if isinstance(value, Mapping):
            yield from flat_options(value, "" if full == _WITHOUT_PREFIX else f"{full}.")
        else:
            yield full, value


def _options(config: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, value in flat_options(config):
        if value is None:
            continue  # what is not given
        if isinstance(value, bool):
            head, _, last = name.rpartition(".")
            yield [f"--{head}{'.' if head else ''}{'' if value else 'no-'}{last}"]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield [f"--{name}", *map(str, value)]
        else:
            yield [f"--{name}", str(value)]
