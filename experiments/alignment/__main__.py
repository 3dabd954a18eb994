"""What alignment does to centers that were distilled from different starts: ``python -m experiments.alignment``.

The main job's digits and three teachers. For each of five seeds, centers are distilled into a multilayer perceptron and
into a small convolutional network, twice: from two initialisations. Then for pairs of centers

- the distance between them, and how far the loss rises on the straight line from one to the other, as they are;
- the same after the units of the second have been permuted to bring it close to the first;
- how far the loss of their aligned mean lies above the mean of their losses: for one pool from two starts that is what
  a center averaged over restarts would cost.

The loss is the cross-entropy with the mean of the teachers' probabilities on the test images, in nats an image.

Writes ``results.json`` and ``table.md`` to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import Rows, markdown_table, results_files, study_parser, summary, write_results
from mtbkd_jax.alignment import Layer, align_params, average_params, barrier, cnn_layers, mlp_layers
from mtbkd_jax.centers import distil_centers
from mtbkd_jax.data import Standardizer
from mtbkd_jax.digits import digits_study
from mtbkd_jax.students import Student, cnn, mlp
from mtbkd_jax.tree import tree_add_scaled, tree_norm, tree_rows
from mtbkd_jax.types import Params

CENTER_SCALE = 1.0
POOL, SVM, CNN = 0, 1, 3
"""Rows of the centers."""

PAIRS = {
    "the pool, twice, from two starts": ((0, POOL), (1, POOL)),
    "svm and cnn, from two starts": ((0, SVM), (1, CNN)),
    "svm and cnn, from one start": ((0, SVM), (0, CNN)),
}
"""Which of the two distillations, and which center of it."""

COLUMNS = {
    "distance": "distance",
    "aligned_distance": "distance, aligned",
    "barrier": "barrier",
    "aligned_barrier": "barrier, aligned",
    "excess_of_mean": "aligned mean",
}


class Architecture(NamedTuple):
    """A student, the shape of its inputs, and the units of it that can be permuted."""

    student: Student
    input_shape: tuple[int, ...]
    layers: Sequence[Layer]


ARCHITECTURES = {
    "MLP 64-32-10": Architecture(mlp(num_features=64, hidden=(32,), num_classes=10), (64,), mlp_layers(1)),
    "MLP 64-64-64-10": Architecture(mlp(num_features=64, hidden=(64, 64), num_classes=10), (64,), mlp_layers(2)),
    "CNN 8-16": Architecture(cnn(image_shape=(8, 8), channels=(8, 16), num_classes=10), (8, 8), cnn_layers(2)),
}


def main() -> None:
    """Run every seed, and write and print the table."""
    parser = study_parser(str(__doc__), Path(__file__).parent)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and starts")
    options = parser.parse_args()
    files = results_files(options)
    runs = []
    for seed in options.seeds:
        runs += run_seed(seed)
        print(*runs[-len(ARCHITECTURES) * len(PAIRS) :], sep="\n", flush=True)
    rows = rows_over_seeds(runs)
    table = markdown_table(
        {pair: {COLUMNS[name]: values for name, values in row.items()} for pair, row in rows.items()}
    )
    write_results(files, summary("alignment", options.seeds, rows) | {"runs": runs}, table)


def run_seed(seed: int) -> list[dict[str, Any]]:
    """Every pair of every architecture on one seed."""
    study = digits_study(seed=seed)
    standardizer = Standardizer.fit(study.pool_inputs)
    teacher_probs = jax.nn.softmax(jnp.asarray(study.pool_teacher_logits))
    targets = jax.nn.softmax(jnp.asarray(study.test_teacher_logits)).mean(1)
    num_examples, num_teachers = teacher_probs.shape[:2]
    # Every teacher is trusted everywhere: what is asked is where distillation ends, not whom to believe.
    log_weights = jnp.log(jnp.full((num_examples, 1 + num_teachers), 1 / num_teachers)).at[:, 0].set(-jnp.inf)
    rows = []
    for name, (student, shape, layers) in ARCHITECTURES.items():
        inputs, test_inputs = (
            jnp.asarray(standardizer(array).reshape(-1, *shape)) for array in (study.pool_inputs, study.test_inputs)
        )
        both = [
            distil_centers(key, student, inputs, teacher_probs, log_weights, CENTER_SCALE, jnp.ones(num_examples, bool))
            for key in jax.random.split(jax.random.key(seed))
        ]

        def loss(params: Params, student: Student = student, test_inputs: jax.Array = test_inputs) -> jax.Array:
            return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(student.apply(params, test_inputs)), axis=-1))

        for pair, (first, second) in PAIRS.items():
            reference, params = (tree_rows(both[start].params, row) for start, row in (first, second))
            aligned = align_params(params, reference, layers)
            rows.append(
                {
                    "seed": seed,
                    "architecture": name,
                    "pair": pair,
                    "distance": _distance(reference, params),
                    "aligned_distance": _distance(reference, aligned),
                    "barrier": float(barrier(loss, reference, params)),
                    "aligned_barrier": float(barrier(loss, reference, aligned)),
                    "excess_of_mean": float(
                        loss(average_params([reference, params], layers)) - (loss(reference) + loss(params)) / 2
                    ),
                }
            )
    return rows


def _distance(a: Params, b: Params) -> float:
    return float(tree_norm(tree_add_scaled(a, -1.0, b)))


def rows_over_seeds(runs: list[dict[str, Any]]) -> Rows:
    """What came out over seeds, for every architecture and pair."""

    def values(architecture: str, pair: str, column: str) -> np.ndarray:
        return np.array([run[column] for run in runs if (run["architecture"], run["pair"]) == (architecture, pair)])

    return {
        f"{architecture}: {pair}": {column: values(architecture, pair, column) for column in COLUMNS}
        for architecture in ARCHITECTURES
        for pair in PAIRS
    }


if __name__ == "__main__":
    main()
