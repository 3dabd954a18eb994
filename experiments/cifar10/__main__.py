"""CIFAR-10 with a generalist and two specialists as teachers: ``python -m experiments.cifar10``.

A seed draws the student's images from those that no teacher was trained on, which of them keep their label, and the
filters of the frozen feature map (``features``) that the images are seen through. The student is a multilayer
perceptron on these features. The methods are those of ``experiments.methods``; images of classes that CIFAR-10 lacks
are to be told from the test images by the predictive entropy.

Needs the development data (``--data``): its images are a lossy copy, compressed by JPEG once more. Writes
``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np

from experiments.cifar10.data import CLASS_NAMES, DEFAULT_DIRECTORY, TEACHER_NAMES, Cifar10, read_cifar10
from experiments.cifar10.features import fit_features
from experiments.labels import label_subset
from experiments.methods import METRICS, SHORT, Row, compare, usual_losses
from experiments.study import kept, results_files, rows_of, study_parser, write_comparison
from experiments.tasks import Task
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.students import mlp


@dataclass(frozen=True)
class Study:
    """What is asked.

    Attributes:
      num_images: images that the student gets with the teachers' outputs.
      num_labels: of them that keep their label.
      num_features: of the frozen feature map.
      hidden: width of the student's hidden layer; 34,186 parameters by default.
      distillation: how.
    """

    num_images: int = 5000
    num_labels: int = 500
    num_features: int = 256
    hidden: int = 128
    distillation: DistillationConfig = SHORT


def main() -> None:
    """Run every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of images, labels and students")
    parser.add_argument("--data", type=Path, default=DEFAULT_DIRECTORY, help="folder of the development data")
    parser.add_argument("--images", type=int, default=Study.num_images, help="images with the teachers' outputs")
    parser.add_argument("--labels", type=int, default=Study.num_labels, help="images that keep their label")
    options = parser.parse_args()
    files = results_files(options)
    study, data = Study(num_images=options.images, num_labels=options.labels), read_cifar10(options.data)
    runs = [
        run
        for seed in options.seeds
        for run in kept(options.runs, f"seed_{seed}", partial(run_seed, data, seed, study))
    ]
    rows = rows_of(runs, (*METRICS, "ood_auroc", "seconds"))
    write_comparison(files, "cifar10", options.seeds, rows, runs)


def run_seed(data: Cifar10, seed: int, study: Study = Study()) -> list[Row]:
    """Every method on one seed."""
    student = mlp(num_features=study.num_features, hidden=(study.hidden,), num_classes=len(CLASS_NAMES))
    config = study.distillation
    task = task_of(data, seed, study)
    return compare(jax.random.key(seed), task, student, seed=seed, losses=usual_losses(config), config=config).rows


def task_of(data: Cifar10, seed: int, study: Study) -> Task:
    """The student's images of a seed, through a feature map that has seen these alone."""
    kept = np.random.default_rng(seed).permutation(len(data.train_images))[: study.num_images]
    features, pool = fit_features(data.train_images[kept], seed=seed, num_features=study.num_features)
    standardize = Standardizer.fit(pool)
    return Task(
        inputs=standardize(pool),
        labels=label_subset(data.train_labels[kept], study.num_labels, seed=seed),
        teacher_names=TEACHER_NAMES,
        teacher_logits=data.train_teacher_logits[kept],
        test_inputs=standardize(features(data.test_images)),
        test_labels=data.test_labels,
        test_teacher_logits=data.test_teacher_logits,
        outside_inputs=standardize(features(data.outside_images)),
    )


if __name__ == "__main__":
    main()
