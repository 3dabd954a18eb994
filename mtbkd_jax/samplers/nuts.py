"""NUTS: the No-U-Turn sampler (Hoffman and Gelman, 2014; multinomial variant of Betancourt, 2017), by BlackJAX.

Samples exp(log p(θ) / T) exactly: the leapfrog trajectory is doubled, forwards or backwards at random, until it turns
back on itself, and the next position is drawn from it with weights exp(−H / T). The step size costs time and acceptance
and not bias.
"""

from functools import partial

import blackjax

from mtbkd_jax.checks import check_positive
from mtbkd_jax.samplers.base import Sampler
from mtbkd_jax.samplers.metropolis import metropolis_sampler
from mtbkd_jax.types import MinibatchLogDensity


def nuts(log_density: MinibatchLogDensity, *, max_tree_depth: int = 10, temperature: float = 1.0) -> Sampler:
    """Build the sampler.

    Args:
      log_density: the log posterior, ``(params, batch) -> scalar``, in nats. The batch must be the whole data for the
        chain to be exact.
      max_tree_depth: a trajectory is doubled at most this many times.
      temperature: T; 1 samples the posterior.

    Returns:
      A pair of pure functions ``init(position, key) -> state`` and ``step(key, state, batch, step_size) -> (state,
      info)``. The inverse mass matrix in the state is the identity until ``warm_up`` adapts it.

    Raises:
      InputError: if ``max_tree_depth`` or ``temperature`` is not positive.
    """
    check_positive(max_tree_depth=max_tree_depth)
    kernel = partial(blackjax.nuts.build_kernel(), max_num_doublings=max_tree_depth)
    return metropolis_sampler(kernel, log_density, temperature)
