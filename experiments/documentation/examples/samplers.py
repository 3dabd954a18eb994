import jax
import jax.numpy as jnp
import numpy as np

import mtbkd_jax as mt
from mtbkd_jax.diagnostics import Convergence

# Linear regression, whose posterior is a known Gaussian: 1,000 rows, three weights, two inputs nearly alike.
NUM_ROWS, NUM_CHAINS, BATCH = 1000, 4, 50
rng = np.random.default_rng(0)
x = rng.normal(size=(NUM_ROWS, 3)).astype(np.float32)
x[:, 1] = 0.9 * x[:, 0] + 0.4 * x[:, 1]
y = (x @ np.array([1.0, -1.0, 0.5]) + rng.normal(size=NUM_ROWS)).astype(np.float32)
precision = np.eye(3) + x.T @ x
true_mean, true_sd = np.linalg.solve(precision, x.T @ y), np.sqrt(np.diag(np.linalg.inv(precision)))
largest = np.linalg.eigvalsh(precision)[-1]


def log_density(weights, batch):
    """Of the posterior in nats; the sum over all rows is estimated from those of the batch."""
    inputs, targets = batch
    return -jnp.sum(weights**2) / 2 - NUM_ROWS * jnp.mean((targets - inputs @ weights) ** 2) / 2


def minibatch(key, data):
    rows = jax.random.randint(key.own, (BATCH,), 0, NUM_ROWS)
    return data[0][rows], data[1][rows]


def all_rows(key, data):
    return data


root = float(1 / np.sqrt(largest))
samplers = {
    "SGLD, minibatches": (mt.sgld(log_density), minibatch, 0.05 * root**2),
    "SGLD, a tenth of the step": (mt.sgld(log_density), minibatch, 0.005 * root**2),
    "SGHMC, minibatches": (mt.sghmc(log_density, friction=1.0 / root), minibatch, 0.1 * root),
    "HMC, all rows": (mt.hmc(log_density, num_leapfrog_steps=10), all_rows, None),
    "ChEES, all rows": (mt.chees(log_density), all_rows, None),
    "NUTS, all rows": (mt.nuts(log_density), all_rows, None),
}
print(f"{'':26}  sd / true sd      error / sd   largest R-hat")
for name, (sampler, draw_batch, step_size) in samplers.items():
    states = mt.start_chains(sampler, jnp.tile(true_mean.astype(np.float32), (NUM_CHAINS, 1)), jax.random.key(1))
    shared = {"data": (x, y), "draw_batch": draw_batch}
    gentle = step_size is not None
    if not gentle:  # those that accept or reject adapt their step size
        states, step_size = mt.warm_up(sampler, states, key=jax.random.key(2), num_steps=200, **shared)
    run = mt.sample_chains(
        sampler,
        states,
        key=jax.random.key(3),
        step_size=mt.constant(step_size),
        num_draws=250,
        num_burn_in=500 if gentle else 0,
        thinning=20 if gentle else 1,
        **shared,
    )
    draws = np.asarray(run.positions)  # [chains, draws, weights]
    r_hat = Convergence(draws).r_hat.max()
    flat = draws.reshape(-1, 3)
    ratio, error = flat.std(0) / true_sd, np.abs(flat.mean(0) - true_mean) / true_sd
    print(f"{name:26}  {ratio.min():.2f} to {ratio.max():.2f}      {error.max():.2f}         {r_hat:.3f}")
