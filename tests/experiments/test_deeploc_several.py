import jax.numpy as jnp
import numpy as np

from experiments.deeploc.several import several_compartments
from mtbkd_jax.uncertainty import mean_deviance


def test_a_second_class_is_told_from_knowing_nothing():
    sure, ignorant = [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]
    two_classes = [0.49, 0.49, 0.01, 0.01]
    probs = np.array([sure, ignorant]), np.array([two_classes, two_classes])
    deviances = tuple(np.asarray(mean_deviance(jnp.log(of)[None])) for of in probs)
    # Ignorance has a higher entropy than either, and a lower second probability.
    assert several_compartments(deviances, probs) == {"auroc_multi": 0.5, "auroc_multi_second": 1.0}
