"""What the studies share: their options, ``results.json`` and ``table.md``, which are not overwritten by mistake."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtbkd_jax.errors import InputError
from mtbkd_jax.storage import read_json, write_json

METRICS = {
    "accuracy": "accuracy",
    "negative_log_likelihood": "NLL",
    "expected_calibration_error": "ECE",
    "coverage_85": "coverage .85",
    "coverage_90": "coverage .90",
    "coverage_95": "coverage .95",
}
"""The metrics of a run that tables show, and the titles of their columns."""

_OTHER_TITLES = {
    "macro_auroc": "AUROC, mean over labels",
    "several_auroc": "several AUROC",
    "auroc_multi": "multi AUROC",
    "auroc_multi_second": "multi AUROC by second class",
    "error_detection_auroc": "error AUROC",
    "ood_auroc": "OOD AUROC",
    "share_r_hat_below_1.05": "R-hat ≤ 1.05",
}

_SHORT_NAMES = {"negative_log_likelihood": "nll", "expected_calibration_error": "ece"}

Rows = Mapping[str, Mapping[str, np.ndarray]]
"""For each method, its metrics over seeds."""


def study_parser(description: str, folder: Path, *, keeps_runs: bool = False) -> argparse.ArgumentParser:
    """The options that every study has; its files go to ``folder`` unless told otherwise.

    Args:
      description: the study's docstring.
      folder: of the study.
      keeps_runs: whether it has an option for a folder of runs, see ``kept``.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--out", type=Path, default=folder, help="folder to write to")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier study")
    if keeps_runs:
        parser.add_argument("--runs", type=Path, help="folder where finished runs are kept, and not run again")
    return parser


def kept(runs: Path | None, name: str, compute: Callable[[], Any]) -> Any:
    """What ``compute`` gives, JSON values, kept as ``runs/name.json``; what is there already is not computed again.

    A long study that was interrupted goes on, and several processes may share its seeds. The folder knows nothing of
    the program: another version of it needs another folder.
    """
    if runs is None:
        return compute()
    file = runs / f"{name}.json"
    if not file.exists():
        runs.mkdir(parents=True, exist_ok=True)
        write_json(file, compute())
    return read_json(file)


def results_files(options: argparse.Namespace) -> tuple[Path, Path]:
    """Where ``results.json`` and ``table.md`` will go; to be asked for before the work is done.

    Raises:
      InputError: if one of them exists, unless ``--overwrite`` was given.
    """
    files = options.out / "results.json", options.out / "table.md"
    existing = [str(path) for path in files if path.exists()]
    if existing and not options.overwrite:
        raise InputError(
            str(options.out),
            "--out",
            f"{', '.join(existing)} of an earlier study",
            "a folder without them",
            "Give another folder, or --overwrite to replace them.",
        )
    options.out.mkdir(parents=True, exist_ok=True)
    return files


def summary(study: str, seeds: Sequence[int], rows: Rows) -> dict[str, Any]:
    """What ``results.json`` of every study says: which study, by which command, on which seeds, and what came out.

    A metric that a method does not have is left out of its row.
    """
    return {
        "study": study,
        "command": shlex.join(["python", "-m", f"experiments.{study}", *_without_places(sys.argv[1:])]),
        "seeds": list(seeds),
        "rows": [
            {"method": method}
            | {
                _SHORT_NAMES.get(name, name): {"mean": float(values.mean()), "sd": _sd(values)}
                for name, values in metrics.items()
                if np.isfinite(values).all()
            }
            for method, metrics in rows.items()
        ],
    }


def _without_places(arguments: Sequence[str]) -> list[str]:
    """The options that decide what comes out, and not where it is written."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out")
    parser.add_argument("--runs")
    parser.add_argument("--overwrite", action="store_true")
    return parser.parse_known_args(arguments)[1]


def rows_of(runs: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Any]:
    """Records of one method on one seed, gathered by method: each metric over seeds, NaN where there is none."""
    names = dict.fromkeys(run["method"] for run in runs)
    return {
        name: {key: np.array([run[key] for run in runs if run["method"] == name], float) for key in metrics}
        for name in names
    }


def titled(rows: Rows) -> dict[str, dict[str, np.ndarray]]:
    """The columns by their titles in a table."""
    return {
        method: {(METRICS | _OTHER_TITLES).get(name, name): values for name, values in metrics.items()}
        for method, metrics in rows.items()
    }


def write_comparison(
    files: tuple[Path, Path], study: str, seeds: Sequence[int], rows: Rows, runs: Sequence[Mapping[str, Any]]
) -> None:
    """Write and print the table of methods over seeds, and every run behind it."""
    write_results(files, summary(study, seeds, rows) | {"runs": runs}, markdown_table(titled(rows)))


def write_results(files: tuple[Path, Path], results: Mapping[str, Any], table: str) -> None:
    """Write both, and print the table."""
    results_file, table_file = files
    write_json(results_file, dict(results))
    table_file.write_text(table, encoding="utf-8")
    print(table)


def markdown_table(rows: Rows, *, digits: int = 3) -> str:
    """A row for each name and a column for each metric: mean ± standard deviation (of a sample) over repetitions."""
    columns = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, metrics in rows.items():
        lines.append(f"| {name} | " + " | ".join(_mean_and_sd(metrics[column], digits) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_sd(values: np.ndarray, digits: int) -> str:
    if np.isnan(values).any():
        return ""
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {_sd(values):.{digits}f}"


def _sd(values: np.ndarray) -> float | None:
    """The standard deviation of a sample; None for a single value."""
    return float(values.std(ddof=1)) if len(values) > 1 else None
