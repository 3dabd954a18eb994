"""The authors' algorithm on DeepLoc, five-fold over the homology partition: ``python -m experiments.deeploc.authors``.

Trains on four partitions with all their labels, and tests on the fifth, on each set of features. How well the fold's
proteins with one compartment are told from those with several is said by two scores, see ``several``.

Writes ``results.json`` (every fold) and ``table.md`` (mean ± standard deviation over folds) to ``authors_algorithm``
beside this file or to ``--out``, and replaces such files only where ``--overwrite`` is given.
"""

import time
from pathlib import Path

import numpy as np

from experiments.authors_algorithm import authors_algorithm
from experiments.deeploc.data import DEFAULT_DIRECTORY, DeepLoc, folds, read_deeploc, read_multilabel
from experiments.deeploc.features import FEATURES
from experiments.deeploc.several import COLUMNS as SEVERAL_COLUMNS
from experiments.deeploc.several import several_compartments
from experiments.study import METRICS, results_files, rows_of, study_parser, write_comparison
from mtbkd_jax.runs import all_metrics
from mtbkd_jax.uncertainty import mean_deviance, predictive_mean

COLUMNS = (*METRICS, *SEVERAL_COLUMNS, "seconds")


def evaluate_fold(
    data: DeepLoc,
    train: np.ndarray,
    test: np.ndarray,
    several: np.ndarray,
    *,
    seed: int,
    adam_epochs: int = 120,
    sgld_epochs: int = 80,
) -> dict[str, float | None]:
    """The metrics on the proteins ``test``, and on ``several``, after training on the proteins ``train``."""
    start = time.perf_counter()
    log_probs = authors_algorithm(
        data.inputs[train],
        data.labels[train],
        data.teacher_logits[train],
        np.concatenate([data.inputs[test], several]),
        seed=seed,
        adam_epochs=adam_epochs,
        sgld_epochs=sgld_epochs,
    )
    deviance = np.asarray(mean_deviance(log_probs))
    metrics = all_metrics(np.asarray(log_probs[:, : test.size]), data.labels[test])
    probs = np.asarray(predictive_mean(log_probs))
    metrics |= several_compartments(*((of[: test.size], of[test.size :]) for of in (deviance, probs)))
    metrics["seconds"] = time.perf_counter() - start
    return {name: metrics[name] for name in COLUMNS}


def main() -> None:
    """Run the five folds on every set of features, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent / "authors_algorithm")
    parser.add_argument("--data", type=Path, default=DEFAULT_DIRECTORY, help="directory of the DeepLoc data")
    parser.add_argument("--features", nargs="+", choices=list(FEATURES), default=list(FEATURES))
    parser.add_argument("--seed", type=int, default=0, help="fold k runs with seed + k")
    options = parser.parse_args()
    files = results_files(options)

    results = []
    for features in options.features:
        data = read_deeploc(options.data, features)
        multilabel, partition = read_multilabel(options.data, features)
        for fold, (train, test) in enumerate(folds(data.partition)):
            seed = options.seed + fold
            metrics = evaluate_fold(data, train, test, multilabel[partition == fold], seed=seed)
            method = f"{FEATURES[features].title}: authors' algorithm, all labels"
            results.append({"method": method, "fold": fold, "seed": seed, **metrics})
            print(results[-1], flush=True)
    seeds = sorted({result["seed"] for result in results})
    write_comparison(files, "deeploc.authors", seeds, rows_of(results, COLUMNS), results)


if __name__ == "__main__":
    main()
