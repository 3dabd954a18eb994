"""The posterior is the one that a user would write down in plain NumPyro, and our chains sample it.

The model is written a second time from the formulas, with NumPyro's distributions, a network of matrix products and no
function of ours but the label of its flat parameters; NumPyro's NUTS samples it. Two tests compare: the log densities,
which must differ by one constant, and the moments of the draws, which must agree within their Monte Carlo error.

Units of the hidden layer can be permuted, so the posterior of a student has many modes in general. Here the
weight-space prior is narrow (scale .3) around two centers that overlap, which leaves one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS, init_to_sample
from numpyro.infer.util import log_density

from mtbkd_jax.diagnostics import import_arviz
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.function_prior import dirichlet_components, teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.samplers import nuts, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.students import mlp
from mtbkd_jax.weight_prior import WeightMixture, weight_space_prior

STUDENT = mlp(num_features=2, hidden=(5,), num_classes=2)
NUM_PARAMETERS = 27
NUM_LABELLED, NUM_UNLABELLED = 30, 50
NUM_EXAMPLES = NUM_LABELLED + NUM_UNLABELLED
NUM_CHAINS, NUM_WARM_UP, NUM_DRAWS = 4, 500, 4000
CONCENTRATION, POWER, TEMPERATURE = 5.0, 0.8, 1.5

RNG = np.random.default_rng(0)
INPUTS = RNG.uniform(-3.0, 3.0, (NUM_EXAMPLES, 2)).astype(np.float32)
LABELS = RNG.binomial(1, 1.0 / (1.0 + np.exp(-2.0 * INPUTS[:NUM_LABELLED, 0])))
# Two teachers that contradict each other in part of the plane, and some weight for "nobody knows".
TEACHER_LOG_ODDS = np.stack([2.0 * INPUTS[:, 0], INPUTS[:, 0] + 1.5 * INPUTS[:, 1] - 0.5], axis=1)
TEACHER_PROBS = np.stack([1.0 / (1.0 + np.exp(TEACHER_LOG_ODDS)), 1.0 / (1.0 + np.exp(-TEACHER_LOG_ODDS))], axis=2)
LOG_WEIGHTS = np.log(RNG.dirichlet(np.ones(3), NUM_EXAMPLES)).astype(np.float32)
# A distance of about 1.7 scales: each component matters, and a chain goes from one to the other.
CENTER = 0.7 * RNG.standard_normal(NUM_PARAMETERS).astype(np.float32)
CENTERS = np.stack([CENTER, CENTER + 0.1 * RNG.standard_normal(NUM_PARAMETERS).astype(np.float32)])
SCALE, COMPONENT_WEIGHTS = 0.3, np.array([0.35, 0.65], np.float32)


def plain_model():
    components = dist.Normal(CENTERS, SCALE).to_event(1)
    weights = numpyro.sample("weights", dist.MixtureSameFamily(dist.Categorical(COMPONENT_WEIGHTS), components))
    bias_1, kernel_1, bias_2, kernel_2 = jnp.split(weights, [5, 15, 17])  # the order of our flat parameters
    hidden = jnp.maximum(INPUTS @ kernel_1.reshape(2, 5) + bias_1, 0.0)
    logits = hidden @ kernel_2.reshape(5, 2) + bias_2
    numpyro.sample("labels", dist.Categorical(logits=logits[:NUM_LABELLED]), obs=LABELS)

    q = jax.nn.softmax(logits / TEMPERATURE)
    flat = dist.Dirichlet(jnp.ones(2)).log_prob(q)
    teachers = [dist.Dirichlet(1.0 + CONCENTRATION * TEACHER_PROBS[:, g]).log_prob(q) for g in range(2)]
    mixture = jax.nn.logsumexp(LOG_WEIGHTS + jnp.stack([flat, *teachers], axis=1), axis=1)
    numpyro.factor("teacher_informed_prior", POWER * mixture.sum())


def our_posterior():
    mixture = WeightMixture(jnp.asarray(CENTERS), jnp.full(2, SCALE), jnp.log(COMPONENT_WEIGHTS))
    return log_posterior(
        STUDENT,
        per_example=(
            categorical_log_likelihood,
            teacher_informed_prior(power=POWER, temperature=TEMPERATURE),
        ),
        per_parameters=(weight_space_prior(mixture),),
    )


def our_examples():
    components = dirichlet_components(jnp.asarray(TEACHER_PROBS), jnp.asarray(LOG_WEIGHTS), CONCENTRATION)
    labels = np.concatenate([LABELS, np.full(NUM_UNLABELLED, -1)])
    return Examples(jnp.asarray(INPUTS), jnp.asarray(labels), components)


def parameters(flat):
    return ravel_pytree(STUDENT.init(jax.random.key(0)))[1](flat)


def points_near_the_centers(key, num_points):
    return CENTER[None] + SCALE * jax.random.normal(key, (num_points, NUM_PARAMETERS))


def draws_of_numpyro():
    mcmc = MCMC(
        NUTS(plain_model, init_strategy=init_to_sample),
        num_warmup=NUM_WARM_UP,
        num_samples=NUM_DRAWS,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_rank_promotion("allow"):
        mcmc.run(jax.random.key(1))
    return np.asarray(mcmc.get_samples(group_by_chain=True)["weights"], np.float64)


def draws_of_ours():
    keys = jax.random.split(jax.random.key(0), 4)
    sampler = nuts(our_posterior())
    states = start_chains(sampler, jax.vmap(parameters)(points_near_the_centers(keys[0], NUM_CHAINS)), keys[1])
    arguments = {"data": our_examples(), "draw_batch": full_batch}
    states, step_sizes = warm_up(sampler, states, key=keys[2], num_steps=NUM_WARM_UP, **arguments)
    run = sample_chains(
        sampler, states, key=keys[3], step_size=constant(step_sizes), num_draws=NUM_DRAWS, chunk_size=500, **arguments
    )
    flat = jax.vmap(jax.vmap(lambda params: ravel_pytree(params)[0]))(run.positions)
    return np.asarray(flat, np.float64)


def mean_and_standard_error(draws):
    """Over chains and draws of ``[chains, draws, quantities]``; the error from ArviZ's effective sample size."""
    effective = np.array([import_arviz().ess(draws[..., i], method="mean") for i in range(draws.shape[-1])])
    return draws.mean((0, 1)), draws.std((0, 1)) / np.sqrt(effective)


def test_log_density_is_that_of_the_plain_model_but_for_a_constant():
    points = points_near_the_centers(jax.random.key(2), 20)
    batch, posterior = full_batch(jax.random.key(0), our_examples()), our_posterior()
    ours = jax.jit(jax.vmap(lambda flat: posterior(parameters(flat), batch)))(points)
    with jax.numpy_rank_promotion("allow"):
        theirs = jax.jit(jax.vmap(lambda flat: log_density(plain_model, (), {}, {"weights": flat})[0]))(points)
    difference = np.asarray(ours - theirs)
    assert np.ptp(np.asarray(ours)) > 50  # the points are far apart: float32 leaves some five digits of this
    np.testing.assert_allclose(difference, difference.mean(), atol=2e-3)


def test_numpyro_nuts_on_the_plain_model_has_the_same_moments():
    ours, theirs = draws_of_ours(), draws_of_numpyro()
    for draws in (ours, theirs):  # one mode, found by every chain; otherwise the errors below mean nothing
        assert max(import_arviz().rhat(draws[..., i]) for i in range(NUM_PARAMETERS)) < 1.01
    # Second moments about one common point, so that they are means of draws like the first.
    middle = (ours.mean((0, 1)) + theirs.mean((0, 1))) / 2
    for moment in (lambda draws: draws, lambda draws: np.square(draws - middle)):
        our_mean, our_error = mean_and_standard_error(moment(ours))
        their_mean, their_error = mean_and_standard_error(moment(theirs))
        # 54 comparisons: a normal deviate exceeds 4.5 in one of them with probability 4e-4, were the seeds drawn anew.
        assert (np.abs(our_mean - their_mean) < 4.5 * np.hypot(our_error, their_error)).all()
