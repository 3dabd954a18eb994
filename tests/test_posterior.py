import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from mtbkd_jax.chains import BatchKey
from mtbkd_jax.examples import Examples, full_batch, stratified_minibatch
from mtbkd_jax.function_prior import dirichlet_components, teacher_informed_prior
from mtbkd_jax.likelihood import categorical_log_likelihood
from mtbkd_jax.posterior import find_mode, linearised_curvature, log_posterior
from mtbkd_jax.students import mlp
from mtbkd_jax.weight_prior import gaussian_prior

NUM_EXAMPLES, NUM_LABELLED, NUM_CLASSES = 30, 8, 3
STUDENT = mlp(num_features=2, hidden=(4,), num_classes=NUM_CLASSES)
TERMS = (categorical_log_likelihood, teacher_informed_prior())


@pytest.fixture(scope="module")
def examples():
    keys = jax.random.split(jax.random.key(0), 3)
    probs = jax.nn.softmax(3 * jax.random.normal(keys[0], (NUM_EXAMPLES, 2, NUM_CLASSES)))
    log_weights = jax.nn.log_softmax(jax.random.normal(keys[1], (NUM_EXAMPLES, 3)))
    rows = jnp.arange(NUM_EXAMPLES)
    labels = jnp.where(rows < NUM_LABELLED, rows % NUM_CLASSES, -1)
    inputs = jax.random.normal(keys[2], (NUM_EXAMPLES, 2))
    return Examples(inputs, labels, dirichlet_components(probs, log_weights, 5.0))


def test_the_posterior_is_the_sum_of_its_terms(examples):
    params = STUDENT.init(jax.random.key(1))
    prior = gaussian_prior(0.5)
    logits = STUDENT.apply(params, examples.inputs)
    expected = sum(term(logits, examples).sum() for term in TERMS) + prior(params)
    posterior = log_posterior(STUDENT, per_example=TERMS, per_parameters=(prior,))
    assert float(posterior(params, full_batch(jax.random.key(0), examples))) == pytest.approx(float(expected), rel=1e-5)


def test_minibatch_gradients_are_unbiased(examples):
    params = STUDENT.init(jax.random.key(1))
    gradient = jax.grad(log_posterior(STUDENT, per_example=TERMS, per_parameters=(gaussian_prior(0.5),)))
    draw = stratified_minibatch(num_labelled=NUM_LABELLED, num_unlabelled=NUM_EXAMPLES - NUM_LABELLED, batch_size=10)

    def of_key(key):
        return jax.flatten_util.ravel_pytree(gradient(params, draw(BatchKey(key, 0), examples)))[0]

    estimates = np.asarray(jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(2), 4000)))
    exact = jax.flatten_util.ravel_pytree(gradient(params, full_batch(jax.random.key(0), examples)))[0]
    standard_errors = estimates.std(0) / np.sqrt(len(estimates))
    # Some thirty components: 4.5 standard errors leave one false alarm in 5,000. The rounding of float32 comes on top.
    rounding = 1e-5 * np.abs(exact).max()
    assert (np.abs(estimates.mean(0) - exact) < 4.5 * standard_errors + rounding).all()


@pytest.mark.parametrize("chunk_size", [1, 7, 30, 64])
def test_chunks_of_any_size_leave_a_weighted_minibatch_as_it_is(examples, chunk_size):
    draw = stratified_minibatch(num_labelled=NUM_LABELLED, num_unlabelled=NUM_EXAMPLES - NUM_LABELLED, batch_size=10)
    batch = draw(BatchKey(jax.random.key(3), 0), examples)
    params = STUDENT.init(jax.random.key(1))
    whole, chunked = (
        jax.value_and_grad(log_posterior(STUDENT, per_example=TERMS, chunk_size=size))(params, batch)
        for size in (None, chunk_size)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, chunked)


def test_the_mode_of_a_gaussian_is_its_mean():
    def log_density(position, batch):
        return -0.5 * jnp.sum(jnp.array([1.0, 100.0]) * (position["w"] - batch) ** 2)

    mean = jnp.array([0.5, -0.3])
    mode = find_mode(
        log_density,
        {"w": jnp.zeros(2)},
        key=jax.random.key(0),
        data=mean,
        draw_batch=lambda key, data: data,
        num_steps=1500,
        learning_rate=0.01,
    )
    np.testing.assert_allclose(mode.params["w"], mean, atol=1e-3)
    assert mode.log_density.shape == (1500,)
    assert mode.log_density[-1] > mode.log_density[0]


def _matrix(student, terms, params, batch):
    product = linearised_curvature(student, per_example=terms)(params, batch)
    flat, unravel = ravel_pytree(params)
    return np.asarray(jax.vmap(lambda row: ravel_pytree(product(unravel(row)))[0])(jnp.eye(flat.size)))


def test_the_linearised_curvature_is_the_hessian_of_a_linear_student(examples):
    student = mlp(num_features=2, hidden=(), num_classes=NUM_CLASSES)
    params = student.init(jax.random.key(2))
    batch = full_batch(jax.random.key(0), examples)
    flat, unravel = ravel_pytree(params)
    posterior = log_posterior(student, per_example=TERMS)
    hessian = jax.hessian(lambda flat: -posterior(unravel(flat), batch))(flat)
    np.testing.assert_allclose(_matrix(student, TERMS, params, batch), hessian, atol=2e-4)


def test_the_linearised_curvature_of_a_likelihood_is_never_negative(examples):
    params = STUDENT.init(jax.random.key(1))
    batch = full_batch(jax.random.key(0), examples)
    terms = (categorical_log_likelihood,)
    matrix = _matrix(STUDENT, terms, params, batch)
    flat, unravel = ravel_pytree(params)
    jacobian = np.asarray(jax.jacobian(lambda flat: STUDENT.apply(unravel(flat), examples.inputs))(flat))[:NUM_LABELLED]
    probs = np.asarray(jax.nn.softmax(STUDENT.apply(params, examples.inputs)))[:NUM_LABELLED]
    in_logits = probs[:, :, None] * np.eye(NUM_CLASSES)[None] - probs[:, :, None] * probs[:, None, :]
    expected = np.einsum("nca,ncd,ndb->ab", jacobian, in_logits, jacobian)
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    assert np.linalg.eigvalsh(matrix.astype(np.float64)).min() > -1e-5
    log_density = log_posterior(STUDENT, per_example=terms)
    hessian = jax.hessian(lambda flat: -log_density(unravel(flat), batch))(flat)
    assert np.linalg.eigvalsh(np.asarray(hessian, np.float64)).min() < -1e-3
