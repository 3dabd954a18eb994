"""What must come out exactly, by the theorems of the paper and by closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from mtbkd_jax.baselines import classical_distillation
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.function_prior import dirichlet_components, responsibilities, teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import log_posterior
from mtbkd_jax.samplers import hmc, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.students import mlp
from mtbkd_jax.weight_prior import WeightMixture, weight_space_prior

NUM_EXAMPLES, NUM_TEACHERS, NUM_CLASSES = 7, 3, 4
STUDENT = mlp(num_features=2, hidden=(5,), num_classes=NUM_CLASSES)


def problem(num_teachers=NUM_TEACHERS, concentration=5.0, has_flat=True):
    keys = jax.random.split(jax.random.key(0), 5)
    probs = jax.nn.softmax(jax.random.normal(keys[0], (NUM_EXAMPLES, num_teachers, NUM_CLASSES)))
    log_weights = jax.nn.log_softmax(jax.random.normal(keys[1], (NUM_EXAMPLES, 1 + num_teachers)))
    if not has_flat:
        log_weights = jax.nn.log_softmax(log_weights.at[:, 0].set(-jnp.inf))
    components = dirichlet_components(probs, log_weights, concentration)
    inputs = jax.random.normal(keys[2], (NUM_EXAMPLES, 2))
    labels = jnp.array([0, 1, 2, 3, -1, -1, 0])
    logits = jax.random.normal(keys[3], (NUM_EXAMPLES, NUM_CLASSES))
    return probs, log_weights, Examples(inputs, labels, components), logits


def test_density_is_the_mixture_of_dirichlet_densities():
    probs, log_weights, examples, logits = problem()
    q = jax.nn.softmax(logits)
    with jax.numpy_rank_promotion("allow"):  # NumPyro's density needs it
        flat = dist.Dirichlet(jnp.ones(NUM_CLASSES)).log_prob(q)[:, None]
        teachers = dist.Dirichlet(1 + 5.0 * probs).log_prob(q[:, None])
    expected = jax.nn.logsumexp(log_weights + jnp.concatenate([flat, teachers], axis=1), axis=1)
    np.testing.assert_allclose(teacher_informed_prior()(logits, examples), expected, rtol=1e-4)


def test_gradient_is_a_pull_towards_the_responsible_teachers():
    probs, _, examples, logits = problem()
    gradient = jax.grad(lambda z: teacher_informed_prior()(z, examples).sum())(logits)
    r = responsibilities(logits, examples.components)[:, 1:]
    expected = 5.0 * jnp.einsum("eg,egc->ec", r, probs - jax.nn.softmax(logits)[:, None])
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_theorem_b1_one_teacher_at_full_power_is_the_distillation_loss():
    probs, _, examples, _ = problem(num_teachers=1, has_flat=False)
    params = STUDENT.init(jax.random.key(1))
    posterior = log_posterior(STUDENT, per_example=(categorical_log_likelihood, teacher_informed_prior()))

    def loss(params):
        log_q = jax.nn.log_softmax(STUDENT.apply(params, examples.inputs))
        of_labels = -jnp.sum(jax.nn.one_hot(examples.labels, NUM_CLASSES) * log_q)  # a label of -1 is all zeros
        return of_labels - 5.0 * jnp.sum(probs[:, 0] * log_q)

    ours = jax.grad(posterior)(params, full_batch(jax.random.key(0), examples))
    theirs = jax.grad(loss)(params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, -b, rtol=1e-4, atol=1e-5)


def test_theorem_42_pooling_single_teacher_posteriors_is_the_classical_loss():
    probs, _, examples, _ = problem(concentration=1.0)
    weights = jnp.array([0.5, 0.3, 0.2])
    params = STUDENT.init(jax.random.key(1))
    batch = full_batch(jax.random.key(0), examples)

    def single(teacher):
        log_weights = jnp.broadcast_to(jnp.array([-jnp.inf, 0.0]), (NUM_EXAMPLES, 2))
        components = dirichlet_components(probs[:, teacher : teacher + 1], log_weights, 1.0)
        terms = (categorical_log_likelihood, teacher_informed_prior())
        return jax.grad(log_posterior(STUDENT, per_example=terms))(
            params, batch._replace(examples=examples._replace(components=components))
        )

    pooled = jax.tree.map(lambda *g: sum(w * x for w, x in zip(weights, g, strict=True)), *map(single, range(3)))
    targets = jnp.einsum("g,egc->ec", weights, probs)
    terms = (categorical_log_likelihood, classical_distillation(strength=1.0))
    classical = jax.grad(log_posterior(STUDENT, per_example=terms))(
        params, batch._replace(examples=examples._replace(components=targets))
    )
    for a, b in zip(jax.tree.leaves(pooled), jax.tree.leaves(classical), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_proposition_43_no_concentration_is_no_teacher():
    *_, examples, logits = problem(concentration=1e-6)
    gradient = jax.grad(lambda z: teacher_informed_prior()(z, examples).sum())(logits)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-5)


def test_proposition_43_a_large_concentration_pins_the_student_to_the_teacher():
    probs, _, examples, logits = problem(num_teachers=1, concentration=1e4, has_flat=False)

    def distance(z):
        return jnp.abs(jax.nn.softmax(z) - probs[:, 0]).max()

    def total(z):
        return (teacher_informed_prior()(z, examples) + categorical_log_likelihood(z, examples)).sum()

    step = jax.jit(lambda z: z + 5e-5 * jax.grad(total)(z))
    start = logits
    for _ in range(500):
        logits = step(logits)
    # The mode is (λ p + e_y) / (λ + 1): at most 1 / λ away from p.
    assert distance(start) > 0.1
    assert distance(logits) < 2e-3


def test_figure_2_the_posterior_of_a_mixture_of_two_centers():
    # Prior centers 2 and 6 of scale 1, one observation of mean 3.5 and unit variance: everything is Gaussian.
    mixture = WeightMixture(jnp.array([[2.0], [6.0]]), jnp.ones(2), jnp.log(jnp.array([0.5, 0.5])))
    prior = weight_space_prior(mixture)

    def log_density(position, batch):
        return prior({"w": position}) - 0.5 * jnp.sum((position - batch) ** 2)

    evidence = np.exp(-((3.5 - np.array([2.0, 6.0])) ** 2) / 4)  # Normal(3.5; center, 1 + 1)
    weights = evidence / evidence.sum()
    means = (np.array([2.0, 6.0]) + 3.5) / 2
    mean = weights @ means
    variance = 0.5 + weights @ (means - mean) ** 2

    sampler = hmc(log_density, num_leapfrog_steps=8)
    states = start_chains(sampler, jnp.array([[2.0], [6.0], [3.0], [5.0]]), jax.random.key(0))
    data = jnp.array([3.5])
    arguments = {"data": data, "draw_batch": lambda key, data: data}
    states, step_sizes = warm_up(sampler, states, key=jax.random.key(1), num_steps=300, **arguments)
    run = sample_chains(
        sampler, states, key=jax.random.key(2), step_size=constant(step_sizes), num_draws=3000, **arguments
    )
    draws = np.asarray(run.positions)[..., 0]
    # Monte Carlo error from the means of batches of a hundred draws; four of them leave one false alarm in 16,000.
    error = draws.reshape(-1, 100).mean(1).std(ddof=1) / np.sqrt(draws.size / 100)
    assert abs(draws.mean() - mean) < 4 * error
    squares = (draws - mean) ** 2
    error = squares.reshape(-1, 100).mean(1).std(ddof=1) / np.sqrt(draws.size / 100)
    assert abs(squares.mean() - variance) < 4 * error


@pytest.mark.parametrize("is_diagonal", [False, True])
def test_weight_mixture_is_the_flat_numpyro_mixture(is_diagonal):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), 4)
        centers = jax.random.normal(keys[0], (3, 11))
        scales = jnp.exp(jax.random.normal(keys[1], (3, 11) if is_diagonal else (3,)))
        log_weights = jax.nn.log_softmax(jax.random.normal(keys[2], (3,)))
        value = jax.random.normal(keys[3], (11,))
        full_scales = scales if is_diagonal else jnp.broadcast_to(scales[:, None], (3, 11))
        flat = dist.MixtureSameFamily(
            dist.Categorical(logits=log_weights), dist.Normal(centers, full_scales).to_event(1)
        )
        ours = WeightMixture(centers, scales, log_weights)
        np.testing.assert_allclose(ours.log_prob(value), flat.log_prob(value), rtol=1e-10)
        np.testing.assert_allclose(jax.grad(ours.log_prob)(value), jax.grad(flat.log_prob)(value), rtol=1e-9)


def test_unlabelled_rows_count_through_the_prior_alone():
    *_, examples, logits = problem()
    likelihood = categorical_log_likelihood(logits, examples)
    assert likelihood[4] == likelihood[5] == 0.0
    assert (likelihood[:4] < 0).all()


def test_chunks_do_not_change_the_posterior():
    *_, examples, _ = problem()
    batch = full_batch(jax.random.key(0), examples)
    params = STUDENT.init(jax.random.key(1))
    terms = (categorical_log_likelihood, teacher_informed_prior())
    whole, chunked = (jax.value_and_grad(log_posterior(STUDENT, per_example=terms, chunk_size=c)) for c in (None, 3))
    for a, b in zip(jax.tree.leaves(whole(params, batch)), jax.tree.leaves(chunked(params, batch)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_gradient_lowers_for_accelerators():
    *_, examples, _ = problem()
    batch = full_batch(jax.random.key(0), examples)
    params = STUDENT.init(jax.random.key(1))
    posterior = log_posterior(STUDENT, per_example=(categorical_log_likelihood, teacher_informed_prior()))
    exported = jax.export.export(jax.jit(jax.grad(posterior)), platforms=("cpu", "cuda", "tpu"))(params, batch)
    assert exported.platforms == ("cpu", "cuda", "tpu")
