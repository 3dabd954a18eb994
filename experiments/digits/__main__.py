"""The main job over several seeds: ``python -m experiments.digits --runs DIR``.

Each seed draws other teachers, another split of scikit-learn's digits and other labels, and is one ``mtbkd run
digits``. Writes ``results.json`` (the table of every run, and what it chose) and ``table.md`` (mean ± standard
deviation over seeds) to the folder of this file or to ``--out``, and replaces such files only where ``--overwrite`` is
given. The runs themselves stay in ``--runs``; those that are finished there are not run again.
"""

import json
from pathlib import Path
from typing import Any

from experiments.study import METRICS, results_files, rows_of, study_parser, write_comparison
from mtbkd_jax.cli import main as mtbkd


def main() -> None:
    """Run the seeds, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ...")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the run directories")
    options = parser.parse_args()
    files = results_files(options)

    seeds, runs = range(options.seeds), []
    for seed in seeds:
        run = options.runs / f"seed_{seed}"
        mtbkd(["run", "digits", "--seed", str(seed), "--out", str(run), "--resume"])
        runs.append({"seed": seed, **results_of(run)})
    by_method = [{"method": method} | metrics for run in runs for method, metrics in run["table"].items()]
    rows = rows_of(by_method, tuple(METRICS))
    write_comparison(files, "digits", seeds, rows, runs)


def results_of(run: Path) -> dict[str, Any]:
    """The table of a run, its settings, and how far its chains agree."""
    table, selection, diagnostics = (
        json.loads((run / name).read_text(encoding="utf-8"))
        for name in ("table.json", "selection.json", "diagnostics.json")
    )
    table.pop("classical KD settings")
    return {
        "chosen": selection["chosen"],
        "no_teacher": selection["no_teacher"],
        "share_r_hat_below_1.05": diagnostics["share_r_hat_below_1.05"],
        "table": table,
    }


if __name__ == "__main__":
    main()
