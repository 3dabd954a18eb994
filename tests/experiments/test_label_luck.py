"""How lucky the labels of a draw of simulation 1 are."""

import numpy as np
import pytest

from experiments.simulation1.design import class_probs
from experiments.simulation1.label_luck import line_of, nll_of_truth
from experiments.simulation_study import LEARNED, NO_TEACHER
from experiments.simulations import Simulation

NUM_INPUTS = 40


def draw_without_teachers(seed):
    rng = np.random.default_rng(seed)
    none = np.zeros((NUM_INPUTS, 0, 2), np.float32)
    inputs = rng.uniform(-4, 4, (NUM_INPUTS, 2)).astype(np.float32)
    labels = rng.integers(0, 2, NUM_INPUTS).astype(np.int32)
    return Simulation(
        inputs=inputs,
        labels=labels,
        label_order=rng.permutation(NUM_INPUTS),
        teacher_logits=none,
        test_inputs=inputs,
        test_labels=labels,
        test_probs=np.full((NUM_INPUTS, 2), 0.5),
        test_domains=np.zeros(NUM_INPUTS, int),
        test_teacher_logits=none,
        test_nll_limit=np.log(2),
        teacher_attempts=np.zeros(0, int),
        teacher_trained=np.zeros(0, bool),
    )


def test_only_labels_that_are_there_count():
    draw = draw_without_teachers(0).with_labels(7)
    rows = draw.label_order[:7]
    of_labels = np.asarray(class_probs(draw.inputs[rows]))[np.arange(7), draw.labels[rows]]
    assert nll_of_truth(draw) == pytest.approx(-np.log(of_labels).mean(), rel=1e-5)


def test_losses_that_fall_with_luck_have_the_correlation_minus_one():
    draws = {seed: draw_without_teachers(seed) for seed in range(4)}
    luck = {seed: nll_of_truth(draw.with_labels(10)) for seed, draw in draws.items()}
    runs = [
        {"method": f"{method}, 10 labels", "seed": seed, "nll": nll, "coverage_85": 0.5 + luck[seed] / 10}
        for seed in draws
        for method, nll in ((NO_TEACHER, 1.0), (LEARNED, 2.0 - luck[seed]))
    ]
    values = np.array(list(luck.values()))
    assert line_of(10, runs, draws) == f"| 10 | {values.mean():.3f} ± {values.std(ddof=1):.3f} | -1.00 | +1.00 |"
