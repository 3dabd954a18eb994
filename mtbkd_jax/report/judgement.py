"""What the student says of examples, and how good that is where they have labels."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mtbkd_jax.draws import DrawStore
from mtbkd_jax.judging import NUM_PROBES, judged_every, log_probs_by_chain
from mtbkd_jax.prediction import Prediction, example_blocks, predict_from
from mtbkd_jax.report.facts import Metrics, RunFacts
from mtbkd_jax.report.shown import ShownExamples
from mtbkd_jax.runs import all_metrics


class Judgement(NamedTuple):
    """What the student says of some examples.

    Attributes:
      examples: of which it says it.
      prediction: by all draws.
      metrics: on those with a label; empty where none has one.
    """

    examples: ShownExamples
    prediction: Prediction
    metrics: Metrics

    @property
    def predicted(self) -> Int[np.ndarray, " examples"]:
        """The most probable class of each."""
        return self.prediction.probs.argmax(axis=1)

    @property
    def by_certainty(self) -> Int[np.ndarray, " examples"]:
        """Rows from the most certain to the least, by the mean deviance; those alike in their own order."""
        return np.argsort(self.prediction.mean_deviance, kind="stable")


def judge_held_out(facts: RunFacts, examples: ShownExamples) -> Judgement:
    """Predict labelled examples and score the prediction by every metric, as ``mtbkd evaluate`` does.

    Raises:
      InputError: if the run keeps no parameters.
    """
    log_probs, weights = facts.run.log_probs(examples.inputs), facts.run.draw_weights
    blocks = example_blocks(len(examples.ids), weights.size, len(facts.run.class_names))
    prediction = predict_from((log_probs[:, block] for block in blocks), jnp.asarray(weights))
    has_labels = (examples.labels >= 0).any()
    return Judgement(examples, prediction, all_metrics(log_probs, examples.labels, weights) if has_labels else {})


def judge_training(facts: RunFacts, examples: ShownExamples) -> Judgement | None:
    """Predict training examples; they are not scored, since the run knows their labels. None without parameters."""
    if not isinstance(facts.run.draws, DrawStore):
        return None
    return Judgement(examples, facts.run.predict(examples.inputs), {})


def traced(
    facts: RunFacts, examples: ShownExamples
) -> tuple[Float[np.ndarray, "chains judged"], Float[np.ndarray, "chains judged probes classes"]]:
    """Log density and log class probabilities of some examples along each chain, of draws evenly spaced.

    The run must have kept parameters.
    """
    run = facts.run
    assert isinstance(run.draws, DrawStore)
    every = judged_every(run.draws.num_draws)
    inputs = run.standardize(examples.inputs[:NUM_PROBES])
    log_probs = log_probs_by_chain(run.student, run.draws, inputs, every=every, temperature=run.prediction_temperature)
    return np.asarray(run.draws.log_density())[:, ::every], log_probs
