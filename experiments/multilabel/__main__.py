"""Proteins with several compartments: ``python -m experiments.multilabel``.

A student of 2,410 parameters and two teachers that are trained on the spot (``data``); of some 1,400 proteins with
teacher outputs a hundred have labels. Five folds over the homology partition, each of which has other teachers. The
methods are those of ``experiments.methods``, on questions (``mtbkd_jax.multilabel``): accuracy, NLL, ECE and coverage
are those of an answer, ten for each protein.

Needs the development data (``--data``). Writes ``results.json`` and ``table.md`` to the folder of this file or to
``--out``, and replaces such files only where ``--overwrite`` is given.
"""

from functools import partial
from pathlib import Path

import jax

from experiments.deeploc.data import DEFAULT_DIRECTORY, NUM_COMPARTMENTS
from experiments.methods import METRICS, SHORT, Row, compare, usual_losses
from experiments.multilabel.data import NUM_FOLDS, Proteins, read_proteins, task_of
from experiments.study import kept, results_files, rows_of, study_parser, write_comparison
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.multilabel import answer_of
from mtbkd_jax.students import mlp

HIDDEN = 32
COLUMNS = (*METRICS, "macro_auroc", "several_auroc", "seconds")


def main() -> None:
    """Run every fold, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--data", type=Path, default=DEFAULT_DIRECTORY, help="folder of the development data")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(NUM_FOLDS), default=list(range(NUM_FOLDS)))
    parser.add_argument("--labels", type=int, default=100, help="proteins whose compartments are known")
    options = parser.parse_args()
    files = results_files(options)
    proteins = read_proteins(options.data)
    runs = [
        run
        for fold in options.folds
        for run in kept(options.runs, f"fold_{fold}", partial(run_fold, proteins, fold, options.labels))
    ]
    write_comparison(files, "multilabel", options.folds, rows_of(runs, COLUMNS), runs)


def run_fold(proteins: Proteins, fold: int, num_labelled: int, config: DistillationConfig = SHORT) -> list[Row]:
    """Every method on one fold."""
    num_features = proteins.inputs.shape[1]
    network = mlp(num_features=num_features, hidden=(HIDDEN,), num_classes=NUM_COMPARTMENTS)
    student = answer_of(network, (num_features,))
    task = task_of(proteins, fold, num_labelled)
    return compare(jax.random.key(fold), task, student, seed=fold, losses=usual_losses(config), config=config).rows


if __name__ == "__main__":
    main()
