"""HMC: Hamiltonian Monte Carlo (Duane et al., 1987; Neal, 2011), by BlackJAX.

Samples exp(log p(θ) / T) exactly: a leapfrog trajectory from a fresh momentum r ~ N(0, T M), accepted with probability

    min(1, exp([H(θ, r) − H(θ', r')] / T)),        H(θ, r) = −log p(θ) + rᵀ M⁻¹ r / 2

so the step size ε costs acceptance and not bias. Stable while ε² times the largest eigenvalue of M⁻¹ · (−∇²log p) is
below 4.
"""

from functools import partial

import blackjax

from mtbkd_jax.checks import check_positive
from mtbkd_jax.samplers.base import Sampler
from mtbkd_jax.samplers.metropolis import metropolis_sampler
from mtbkd_jax.types import MinibatchLogDensity


def hmc(log_density: MinibatchLogDensity, *, num_leapfrog_steps: int, temperature: float = 1.0) -> Sampler:
    """Build the sampler.

    Args:
      log_density: the log posterior, ``(params, batch) -> scalar``, in nats. The batch must be the whole data for the
        chain to be exact.
      num_leapfrog_steps: length of a trajectory.
      temperature: T; 1 samples the posterior.

    Returns:
      A pair of pure functions ``init(position, key) -> state`` and ``step(key, state, batch, step_size) -> (state,
      info)``. The inverse mass matrix in the state is the identity until ``warm_up`` adapts it.

    Raises:
      InputError: if ``num_leapfrog_steps`` or ``temperature`` is not positive.
    """
    check_positive(num_leapfrog_steps=num_leapfrog_steps)
    kernel = partial(blackjax.hmc.build_kernel(), num_integration_steps=num_leapfrog_steps)
    return metropolis_sampler(kernel, log_density, temperature)
