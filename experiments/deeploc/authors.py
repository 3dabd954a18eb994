"""The authors' algorithm on DeepLoc, five-fold over the homology partition: ``python -m experiments.deeploc.authors``.

Trains on four partitions with all their labels, tests on the fifth, and writes accuracy, NLL (nats) and ECE (15 fixed
bins) of the predictive mean for each fold, and the area under the ROC curve by which the mean deviance tells the fold's
proteins with one compartment from those with several; then their mean and standard deviation over folds, to
``authors_algorithm.csv`` beside this file.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from experiments.authors_algorithm import authors_algorithm
from experiments.deeploc.data import DEFAULT_DIRECTORY, DeepLoc, folds, read_deeploc, read_multilabel
from mtbkd_jax.metrics import (
    accuracy,
    expected_calibration_error,
    negative_log_likelihood,
    out_of_distribution_auroc,
)
from mtbkd_jax.uncertainty import mean_deviance, predictive_mean

METRICS = ("accuracy", "nll", "ece", "auroc_multi")


def evaluate_fold(
    data: DeepLoc, train: np.ndarray, test: np.ndarray, several: np.ndarray, *, seed: int
) -> tuple[float, float, float, float]:
    """The metrics on the proteins ``test``, and on ``several``, after training on the proteins ``train``."""
    asked = np.concatenate([data.inputs[test], several])
    log_probs = authors_algorithm(data.inputs[train], data.labels[train], data.teacher_logits[train], asked, seed=seed)
    deviance = np.asarray(mean_deviance(log_probs))
    probs, labels = predictive_mean(log_probs[:, : test.size]), data.labels[test]
    return (
        accuracy(probs, labels),
        negative_log_likelihood(probs, labels),
        expected_calibration_error(probs, labels, num_bins=15),
        out_of_distribution_auroc(deviance[: test.size], deviance[test.size :]),
    )


def main() -> None:
    """Run the five folds, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DIRECTORY, help="directory of the DeepLoc data")
    parser.add_argument("--seed", type=int, default=0, help="fold k runs with seed + k")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("authors_algorithm.csv"))
    options = parser.parse_args()

    data = read_deeploc(options.data)
    multilabel, partition = read_multilabel(options.data)
    table = np.array(
        [
            evaluate_fold(data, train, test, multilabel[partition == fold], seed=options.seed + fold)
            for fold, (train, test) in enumerate(folds(data.partition))
        ]
    )
    names = [str(fold) for fold in range(len(table))] + ["mean", "sd"]
    rows = [*table, table.mean(0), table.std(0, ddof=1)]
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", *METRICS])
        writer.writerows([name, *(f"{value:.4f}" for value in row)] for name, row in zip(names, rows, strict=True))
    print(options.output.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
