"""What the studies share: tables in Markdown, and files that are not overwritten by mistake."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtbkd_jax.errors import InputError


def markdown_table(rows: Mapping[str, Mapping[str, np.ndarray]], *, digits: int = 3) -> str:
    """A row for each name and a column for each metric: mean ± standard deviation (of a sample) over repetitions."""
    columns = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, metrics in rows.items():
        lines.append(f"| {name} | " + " | ".join(_mean_and_sd(metrics[column], digits) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def new_files(folder: Path, names: Sequence[str], *, overwrite: bool) -> list[Path]:
    """The paths of files about to be written.

    Raises:
      InputError: if one of them exists, unless ``overwrite``.
    """
    paths = [folder / name for name in names]
    existing = [str(path) for path in paths if path.exists()]
    if existing and not overwrite:
        raise InputError(
            str(folder),
            "--out",
            f"{', '.join(existing)} of an earlier study",
            "a folder without them",
            "Give another folder, or --overwrite to replace them.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    return paths


def _mean_and_sd(values: np.ndarray, digits: int) -> str:
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {values.std(ddof=1):.{digits}f}"
