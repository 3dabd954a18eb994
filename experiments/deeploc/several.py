"""Can a student that knows single compartments tell that a protein has several?

Two scores of a protein, neither of which has seen one with several compartments:

- the mean deviance, as in the paper: twice the entropy of the draws;
- the probability of the second most probable compartment. An entropy is also high where the student knows nothing, and
  then many compartments are possible; a protein that lies in two has a second one.
"""

import numpy as np
from jaxtyping import Float

from mtbkd_jax.metrics import out_of_distribution_auroc

COLUMNS = ("auroc_multi", "auroc_multi_second")


def several_compartments(
    deviances: tuple[Float[np.ndarray, " single"], Float[np.ndarray, " several"]],
    probs: tuple[Float[np.ndarray, "single classes"], Float[np.ndarray, "several classes"]],
) -> dict[str, float]:
    """Areas under the curve by both scores.

    Args:
      deviances: mean deviance of proteins with one compartment, and of proteins with several, nats.
      probs: predictive means.
    """
    second = (np.sort(np.asarray(of), axis=1)[:, -2] for of in probs)
    one, more = (np.asarray(of) for of in deviances)
    return dict(zip(COLUMNS, (out_of_distribution_auroc(one, more), out_of_distribution_auroc(*second)), strict=True))
