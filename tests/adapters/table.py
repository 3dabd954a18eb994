"""One adapter of each kind, on a small model of its framework, with what the framework itself says of the inputs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from mtbkd_jax.adapters import Adapter, from_callable, from_linen, from_nnx, from_sklearn

NUM_EXAMPLES = 130


class Case(NamedTuple):
    """An adapter, inputs, and the log probabilities that its framework gives for all of them at once."""

    adapter: Adapter
    inputs: np.ndarray
    log_probs: np.ndarray


def numbers(num_features: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(NUM_EXAMPLES, num_features)).astype(np.float32)


def of_function() -> Case:
    weights = np.random.default_rng(1).normal(size=(4, 3))
    inputs = numbers()
    return Case(from_callable(lambda rows: rows @ weights), inputs, log_softmax(inputs @ weights, axis=1))


def of_sklearn_forest() -> Case:
    from sklearn.ensemble import RandomForestClassifier

    inputs = numbers()
    labels = np.array(["ant", "bee", "cow"])[inputs[:, :3].argmax(1)]
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(inputs[:60], labels[:60])
    # Trees give probabilities of zero, which become the smallest normal float32.
    return Case(from_sklearn(forest), inputs, np.log(np.maximum(forest.predict_proba(inputs), 1.1754944e-38)))


def of_sklearn_text_pipeline() -> Case:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = sentences()
    pipeline = make_pipeline(CountVectorizer(), LogisticRegression())
    pipeline.fit(texts, np.char.count(texts, "good") > np.char.count(texts, "bad"))
    return Case(from_sklearn(pipeline), texts, pipeline.predict_log_proba(texts))


def of_linen() -> Case:
    import flax.linen as nn
    import jax

    class Network(nn.Module):
        @nn.compact
        def __call__(self, inputs, train: bool):
            hidden = nn.BatchNorm(use_running_average=not train)(nn.relu(nn.Dense(8)(inputs)))
            return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(hidden))

    module, inputs = Network(), numbers()
    variables = module.init(jax.random.key(0), inputs[:1], train=False)
    logits = module.apply(variables, inputs, train=False)
    return Case(from_linen(module, variables, train=False), inputs, log_softmax(np.asarray(logits), axis=1))


def of_nnx() -> Case:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden = nnx.Linear(4, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.head = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, inputs):
            return self.head(self.dropout(self.norm(nnx.relu(self.hidden(inputs)))))

    module, inputs = Network(nnx.Rngs(0)), numbers()
    adapter = from_nnx(module)  # made of a module in training mode
    module.eval()
    return Case(adapter, inputs, log_softmax(np.asarray(module(inputs)), axis=1))


def sentences() -> np.ndarray:
    """Texts of different lengths over a small vocabulary."""
    words = np.array(["good", "bad", "the", "film", "was", "not", "very", "plot"])
    rng = np.random.default_rng(2)
    return np.array([" ".join(rng.choice(words, rng.integers(2, 9))) for _ in range(NUM_EXAMPLES)])


CASES: dict[str, Callable[[], Case]] = {
    "function": of_function,
    "scikit-learn forest": of_sklearn_forest,
    "scikit-learn text pipeline": of_sklearn_text_pipeline,
    "Flax linen": of_linen,
    "Flax nnx": of_nnx,
}
