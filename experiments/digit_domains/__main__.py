"""Experts of three domains of digits, one student for all: ``python -m experiments.digit_domains``.

A seed draws the domains of ``data``, trains one large network on each (``teachers``), and draws which of the student's
images keep their label. The student sees every domain at a quarter of the pixels, and does not know which one an image
is of. The methods are those of ``experiments.methods``. The first seed's most and least certain test images become
``certainty.png``.

MNIST is taken from the development data where they are; without them, or with ``--small``, scikit-learn's digits stand
for it and everything is smaller. ``--digit5`` takes other domains from a folder (``digit5`` says in which layout).
Writes ``results.json``, ``table.md`` and the figure to the folder of this file or to ``--out``, and replaces such files
only where ``--overwrite`` is given.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from experiments.digit_domains.data import (
    MNIST_DIRECTORY,
    Domain,
    Images,
    Sizes,
    draw_domains,
    read_mnist,
    small_handwriting,
)
from experiments.digit_domains.digit5 import read_digit5, split_domains
from experiments.digit_domains.figure import certain_and_uncertain
from experiments.digit_domains.networks import PatchCNN
from experiments.digit_domains.teachers import TEACHER, ask, teach
from experiments.labels import label_subset
from experiments.methods import METRICS, SHORT, Comparison, Draws, Row, compare, timed, usual_losses
from experiments.study import kept, results_files, rows_of, study_parser, write_comparison
from experiments.tasks import Task
from mtbkd_jax.configuration import DistillationConfig
from mtbkd_jax.data import Standardizer
from mtbkd_jax.figures import save_figures
from mtbkd_jax.prediction import predict
from mtbkd_jax.students import Student, from_linen
from mtbkd_jax.types import Key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDENT = from_linen(PatchCNN(channels=(16, 32), hidden=64), (14, 14, 3))
"""22,010 parameters."""

Draw = Callable[[int], dict[str, Domain]]
"""The domains of a seed."""


SIZES = Sizes(teacher=6000, pool=1000, test=700)


@dataclass(frozen=True)
class Study:
    """What is asked.

    Attributes:
      sizes: images of each domain.
      num_labels: images of all domains together that keep their label.
      num_epochs: of a teacher.
      teacher: the architecture of every teacher.
      student: the architecture of every student.
      distillation: how.
    """

    sizes: Sizes = SIZES
    num_labels: int = 300
    num_epochs: int = 15
    teacher: Student = TEACHER
    student: Student = STUDENT
    distillation: DistillationConfig = SHORT


SMALL = Study(sizes=Sizes(teacher=500, pool=200, test=150), num_labels=100, num_epochs=30)


class Prepared(NamedTuple):
    """What the students are given, and the test images as they are drawn."""

    task: Task
    test_images: UInt8[np.ndarray, "test 28 28 3"]


def main() -> None:
    """Run every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and students")
    parser.add_argument("--labels", type=int, help="images that keep their label")
    parser.add_argument(
        "--sizes", type=int, nargs=3, metavar=Sizes._fields, help="images of each domain: for its teacher, ..."
    )
    parser.add_argument("--small", action="store_true", help="scikit-learn's digits in place of MNIST")
    parser.add_argument("--digit5", type=Path, metavar="DIR", help="folder with an NPZ file for each domain")
    options = parser.parse_args()
    files = results_files(options)
    study, draw = sources(options)
    runs: list[Row] = []

    def run(seed: int, *, is_shown: bool) -> list[Row]:
        prepared, comparison = run_seed(draw(seed), seed, study)
        if is_shown:
            save_figures({"certainty": figure_of(prepared, study.student, comparison.draws)}, options.out)
        return comparison.rows

    for seed in options.seeds:
        runs += kept(options.runs, f"seed_{seed}", partial(run, seed, is_shown=seed == options.seeds[0]))
    write_comparison(files, "digit_domains", options.seeds, rows_of(runs, (*METRICS, "seconds")), runs)


def sources(options: argparse.Namespace) -> tuple[Study, Draw]:
    """How much is asked for, and where the domains come from."""
    is_small = options.small or (options.digit5 is None and not MNIST_DIRECTORY.is_dir())
    study = SMALL if is_small else Study()
    if options.labels is not None:
        study = replace(study, num_labels=options.labels)
    if options.sizes is not None:
        study = replace(study, sizes=Sizes(*options.sizes))
    if options.digit5 is not None:
        domains, where = read_digit5(options.digit5), str(options.digit5)
        return study, lambda seed: split_domains(domains, study.sizes, seed=seed, where=where)
    handwriting = small_handwriting() if is_small else read_mnist()
    return study, lambda seed: draw_domains(handwriting, study.sizes, seed=seed)


def run_seed(domains: Mapping[str, Domain], seed: int, study: Study) -> tuple[Prepared, Comparison]:
    """Every method on the domains of one seed."""
    teacher_key, compare_key = jax.random.split(jax.random.key(seed))
    prepared = prepare(teacher_key, domains, seed, study)
    config = study.distillation
    return prepared, compare(
        compare_key, prepared.task, study.student, seed=seed, losses=usual_losses(config), config=config
    )


def prepare(key: Key, domains: Mapping[str, Domain], seed: int, study: Study) -> Prepared:
    """Train the teachers, ask them about all domains' images, and make these small for the student."""
    pool, test = (
        Images(*(np.concatenate(parts) for parts in zip(*images, strict=True)))
        for images in ([domain.pool for domain in domains.values()], [domain.test for domain in domains.values()])
    )
    pool_logits, test_logits = [], []
    for teacher_key, (name, domain) in zip(jax.random.split(key, len(domains)), domains.items(), strict=True):
        params, seconds = timed(teach, teacher_key, *domain.teacher, num_epochs=study.num_epochs, network=study.teacher)
        pool_logits.append(ask(params, pool.images, study.teacher))
        test_logits.append(ask(params, test.images, study.teacher))
        right = test_logits[-1].argmax(1) == test.labels
        by_domain = dict(zip(domains, right.reshape(len(domains), -1).mean(1).tolist(), strict=True))
        print(f"{seed} teacher: {name}, {seconds:.0f} s, accuracy by domain {by_domain}", flush=True)
    small_pool, small_test = halved(pool.images), halved(test.images)
    standardize = Standardizer.fit(small_pool)
    task = Task(
        inputs=standardize(small_pool),
        labels=label_subset(pool.labels, study.num_labels, seed=seed),
        teacher_names=tuple(domains),
        teacher_logits=np.stack(pool_logits, axis=1),
        test_inputs=standardize(small_test),
        test_labels=test.labels,
        test_teacher_logits=np.stack(test_logits, axis=1),
    )
    return Prepared(task, test.images)


def halved(images: UInt8[np.ndarray, "images 28 28 3"]) -> Float[np.ndarray, "images 14 14 3"]:
    """Images of half the height and width, each pixel the mean of four."""
    return images.reshape(len(images), 14, 2, 14, 2, 3).mean((2, 4), dtype=np.float32)


def figure_of(prepared: Prepared, student: Student, draws: Draws) -> "Figure":
    """The test images that the student is surest of, and least sure of."""
    prediction = predict(
        student,
        draws.params,
        prepared.task.test_inputs,
        jnp.asarray(draws.weights),
        temperature=draws.prediction_temperature,
    )
    return certain_and_uncertain(
        prepared.test_images, prepared.task.test_labels, prediction.probs.argmax(1), prediction.mean_deviance
    )


if __name__ == "__main__":
    main()
