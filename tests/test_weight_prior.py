from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS

from mtbkd_jax.errors import InputError
from mtbkd_jax.weight_prior import WeightMixture, gaussian_prior, weight_space_prior

CENTERS = jnp.array([[-1.0, 0.0, 2.0], [3.0, 1.0, -2.0]])
SCALES = jnp.array([[0.5, 1.0, 2.0], [1.0, 0.3, 0.7]])
WEIGHTS = np.array([0.3, 0.7])
MIXTURE = WeightMixture(CENTERS, SCALES, jnp.log(jnp.asarray(WEIGHTS, jnp.float32)))


def test_draws_have_the_moments_of_the_mixture():
    num_draws = 100_000
    draws = np.asarray(MIXTURE.sample(jax.random.key(0), (num_draws,)))
    mean = WEIGHTS @ np.asarray(CENTERS)
    deviations = np.asarray(CENTERS) - mean
    covariance = np.einsum("k,ki,kj->ij", WEIGHTS, deviations, deviations)
    covariance += np.diag(WEIGHTS @ np.asarray(SCALES) ** 2)
    assert (np.abs(draws.mean(0) - mean) < 4 * np.sqrt(np.diag(covariance) / num_draws)).all()
    # The off-diagonal entries are there only if one index serves all parameters of a draw.
    products = np.einsum("si,sj->sij", draws - mean, draws - mean)
    assert (np.abs(products.mean(0) - covariance) < 4.5 * products.std(0) / np.sqrt(num_draws)).all()


def test_leading_axes_are_a_batch():
    values = MIXTURE.sample(jax.random.key(1), (4, 2))
    assert values.shape == (4, 2, 3)
    one_by_one = [[MIXTURE.log_prob(value) for value in row] for row in values]
    np.testing.assert_allclose(MIXTURE.log_prob(values), one_by_one, rtol=1e-5)


def test_far_from_every_center_the_density_stays_finite():
    value = jnp.full(3, 1e4)
    assert jnp.isfinite(MIXTURE.log_prob(value))
    assert jnp.isfinite(jax.grad(MIXTURE.log_prob)(value)).all()


def test_the_prior_of_a_tree_differs_from_the_density_by_a_constant():
    prior = weight_space_prior(MIXTURE)
    values = MIXTURE.sample(jax.random.key(2), (6,))
    of_trees = jnp.stack([prior({"a": value[:1], "b": value[1:]}) for value in values])
    differences = np.asarray(of_trees - MIXTURE.log_prob(values))
    np.testing.assert_allclose(differences, differences[0], atol=1e-5)


def test_the_gaussian_prior_pulls_to_zero():
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[3.0]])}
    assert float(gaussian_prior(2.0)(params)) == -14.0 / 8
    gradient = jax.grad(gaussian_prior(2.0))(params)
    np.testing.assert_allclose(gradient["a"], -params["a"] / 4)


def test_figure_2_in_numpyros_own_nuts():
    # Prior centers 2 and 6, one observation 3.5, all scales 1: a component has the evidence Normal(3.5; center, 1 + 1).
    def model():
        mixture = WeightMixture(jnp.array([[2.0], [6.0]]), jnp.ones(2), jnp.log(jnp.array([0.5, 0.5])))
        weight = numpyro.sample("weight", mixture)
        numpyro.sample("y", dist.Normal(weight[0], 1.0), obs=3.5)

    evidence = np.exp(-((3.5 - np.array([2.0, 6.0])) ** 2) / 4)
    weights = evidence / evidence.sum()
    means = (np.array([2.0, 6.0]) + 3.5) / 2

    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=8000, progress_bar=False)
    mcmc.run(jax.random.key(0))
    draws = np.asarray(mcmc.get_samples()["weight"])[:, 0]
    # The share of the upper component, draw by draw: its posterior mean is that component's weight.
    logits = np.log(weights) - (draws[:, None] - means) ** 2
    upper = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    for of_draws, expected in ((upper, weights[1]), (draws, weights @ means)):
        batch_means = of_draws.reshape(40, -1).mean(1)
        assert abs(batch_means.mean() - expected) < 4 * batch_means.std(ddof=1) / np.sqrt(40)


@pytest.mark.parametrize("num_parameters", [3, 512, 1100], ids=["less than a row", "one row", "rows and a rest"])
@pytest.mark.parametrize("is_diagonal", [False, True], ids=["scalar scales", "diagonal scales"])
def test_value_and_gradients_are_those_of_numpyros_flat_mixture(num_parameters, is_diagonal):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(3), 4)
        centers = jax.random.normal(keys[0], (4, num_parameters), float)
        scales = jnp.exp(0.3 * jax.random.normal(keys[1], (4, num_parameters if is_diagonal else 1), float))
        log_weights = jax.nn.log_softmax(jax.random.normal(keys[2], (4,), float))
        value = centers.mean(0) + 0.1 * jax.random.normal(keys[3], (num_parameters,), float)

        def ours(value, centers, scales, log_weights):
            given = scales if is_diagonal else scales[:, 0]
            return WeightMixture(centers, given, log_weights).log_prob(value)

        def flat(value, centers, scales, log_weights):
            components = dist.Normal(centers, jnp.broadcast_to(scales, centers.shape)).to_event(1)
            return dist.MixtureSameFamily(dist.Categorical(logits=log_weights), components).log_prob(value)

        arguments = (value, centers, scales, log_weights)

        def curvature(function):
            gradient = jax.grad(function)
            return jax.jvp(lambda value: gradient(value, *arguments[1:]), (value,), (jnp.ones_like(value),))[1]

        compare = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
        compare(ours(*arguments), flat(*arguments))
        compare(curvature(ours), curvature(flat))
        of_gradient = [
            jax.grad(lambda value, f=f: jnp.sum(jax.grad(f)(value, *arguments[1:])))(value) for f in (ours, flat)
        ]
        compare(*of_gradient)
        # NumPyro normalises the weights once more, so the gradients by them differ.
        by_argument = [jax.grad(function, argnums=(0, 1, 2))(*arguments) for function in (ours, flat)]
        jax.tree.map(compare, *by_argument)


def test_a_mixture_of_one_is_a_gaussian():
    mixture = WeightMixture(CENTERS[:1], SCALES[:1], jnp.zeros(1))
    gaussian = dist.Normal(CENTERS[0], SCALES[0]).to_event(1)
    value = jnp.array([0.3, -1.0, 5.0])
    np.testing.assert_allclose(mixture.log_prob(value), gaussian.log_prob(value), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(mixture.log_prob)(value), jax.grad(gaussian.log_prob)(value), rtol=1e-6)
    draws, num_draws = np.asarray(mixture.sample(jax.random.key(4), (10_000,))), 10_000
    assert (np.abs(draws.mean(0) - CENTERS[0]) < 4 * np.asarray(SCALES[0]) / num_draws**0.5).all()
    assert (np.abs(draws.std(0) / SCALES[0] - 1) < 4 / (2 * num_draws) ** 0.5).all()


@pytest.mark.parametrize("is_diagonal", [False, True], ids=["scalar scales", "diagonal scales"])
def test_at_ten_million_parameters_float32_keeps_what_matters(is_diagonal):
    num_parameters = 10_000_000
    keys = jax.random.split(jax.random.key(5), 3)
    value = jax.random.normal(keys[0], (num_parameters,))
    # The second component is the first one read backwards: but for roundings both are as wide and as far away.
    noise = jax.random.normal(keys[1], (num_parameters,))
    noise = jnp.stack([noise, noise[::-1]])
    width = jnp.exp(0.3 * jax.random.normal(keys[2], (num_parameters,))) * 0.02 if is_diagonal else jnp.array(0.02)
    scales = jnp.stack([width, width[::-1] if is_diagonal else width])
    mixture = WeightMixture(value[None] + noise * scales.reshape(2, -1), scales, jnp.log(jnp.array([0.3, 0.7])))
    log_prob, gradient = jax.jit(lambda value, mixture: jax.value_and_grad(mixture.log_prob)(value))(value, mixture)
    components = np.asarray(jax.jit(lambda value, mixture: mixture.component_log_densities(value))(value, mixture))

    centers, scales = np.asarray(mixture.centers), np.asarray(mixture.scales)
    exact = np.log([0.3, 0.7])
    for k in range(2):
        z = (np.asarray(value, np.float64) - centers[k]) / np.asarray(scales[k], np.float64)
        logs = np.log(np.asarray(scales[k], np.float64))
        exact[k] += -0.5 * z @ z - logs.sum() * (num_parameters // logs.size)
    responsibilities = np.exp(exact - np.logaddexp(*exact))
    exact_log_prob = np.logaddexp(*exact) - 0.5 * num_parameters * np.log(2 * np.pi)
    assert abs(float(log_prob) - exact_log_prob) < 3 * np.spacing(np.float32(exact_log_prob))
    assert abs((components[1] - components[0]) - (exact[1] - exact[0])) < 0.01
    some = slice(0, 1000)
    pulls = [
        r * (centers[k, some] - value[some]) / scales[k, some if is_diagonal else 0] ** 2
        for k, r in enumerate(responsibilities)
    ]
    np.testing.assert_allclose(gradient[some], sum(pulls), rtol=0.02, atol=0.5)


# ---- what is not a mixture

LOG_WEIGHTS = jnp.log(jnp.array([0.3, 0.7]))


@pytest.mark.parametrize(
    ("field", "wrong", "found"),
    [
        ("scales", jnp.array([1.0, 0.0]), "0.0 in component 1, and 1 of 2"),
        ("scales", jnp.array([-0.5, 1.0]), "-0.5 in component 0"),
        ("scales", jnp.array([1.0, jnp.inf]), "inf in component 1"),
        ("scales", SCALES.at[1, 2].set(jnp.nan), "nan in component 1, and 1 of 6"),
        ("scales", jnp.ones(3), r"shape \(3,\), expected \(2,\) or \(2, 3\)"),
        ("scales", jnp.ones((2, 2)), r"shape \(2, 2\)"),
        ("scales", jnp.ones((3, 2)), r"shape \(3, 2\)"),
        ("log_weights", jnp.zeros(3), r"shape \(3,\), expected \(2,\)"),
        ("log_weights", jnp.zeros((2, 1)), r"shape \(2, 1\)"),
        ("log_weights", jnp.log(jnp.array([1.5, -0.5])), "NaN in component 1"),
        ("log_weights", jnp.array([0.3, 0.7]), "weights that sum to 3.364"),
        ("log_weights", jnp.full(2, -jnp.inf), "weights that sum to 0"),
        ("log_weights", jnp.array([0.0, jnp.inf]), "weights that sum to inf"),
        ("centers", CENTERS[:0], r"shape \(0, 3\), expected \(components, parameters\)"),
        ("centers", CENTERS.at[1, 0].set(jnp.nan), "component 1, and 1 of 2"),
        ("centers", CENTERS.at[:, 0].set(-jnp.inf), "component 0, and 2 of 2"),
    ],
)
def test_the_mixture_refuses(field, wrong, found):
    arguments = {"centers": CENTERS, "scales": SCALES, "log_weights": LOG_WEIGHTS, field: wrong}
    with pytest.raises(InputError, match=f"^WeightMixture: {field}: found .*{found}"):
        WeightMixture(**arguments)


def test_the_same_component_twice_is_that_component():
    # With one teacher and no flat component the pool is the teacher.
    twice = WeightMixture(CENTERS[jnp.array([0, 1, 0])], jnp.ones(3), jnp.log(jnp.array([0.2, 0.3, 0.5])))
    once = WeightMixture(CENTERS, jnp.ones(2), jnp.log(jnp.array([0.7, 0.3])))
    value = CENTERS.mean(0)
    np.testing.assert_allclose(twice.log_prob(value), once.log_prob(value), rtol=1e-6)


def test_what_is_traced_passes_and_its_shape_does_not():
    def log_prob(centers, scales, log_weights):
        return WeightMixture(centers, scales, log_weights).log_prob(jnp.zeros(3))

    for wrong in (
        (CENTERS[jnp.array([0, 0])], jnp.ones(2), LOG_WEIGHTS),
        (CENTERS * jnp.nan, jnp.array([0.0, -1.0]), jnp.array([0.3, jnp.nan])),
    ):
        assert jax.jit(log_prob)(*wrong).shape == ()
        assert jax.vmap(log_prob)(*(leaf[None] for leaf in wrong)).shape == (1,)
    with pytest.raises(InputError, match="scales: found shape"):
        jax.jit(log_prob)(CENTERS, jnp.ones(3), LOG_WEIGHTS)


def test_a_mixture_that_passes_through_a_transformation_is_not_checked_again(monkeypatch):
    calls = []
    original = WeightMixture.__init__
    monkeypatch.setattr(WeightMixture, "__init__", lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs))
    value = jnp.zeros(3)
    mixture = WeightMixture(CENTERS, SCALES, LOG_WEIGHTS)
    through_jit = jax.jit(lambda mixture: mixture)(mixture)
    # As with an optimiser's updates, a tree of the same structure may hold anything.
    emptied = jax.tree.map(jnp.zeros_like, mixture)
    gradient = jax.grad(lambda mixture: mixture.log_prob(value))(mixture)
    stacked = jax.vmap(lambda shift: WeightMixture(CENTERS + shift, SCALES, LOG_WEIGHTS))(jnp.arange(2.0))
    log_probs = jax.vmap(lambda mixture: mixture.log_prob(value))(stacked)
    assert len(calls) == 2
    assert (emptied.scales == 0).all()
    assert gradient.centers.shape == CENTERS.shape
    for index, shift in enumerate((0.0, 1.0)):
        np.testing.assert_allclose(log_probs[index], mixture.log_prob(value - shift), rtol=1e-6)
    np.testing.assert_allclose(through_jit.log_prob(value), mixture.log_prob(value), rtol=1e-6)


@pytest.mark.parametrize(("platform", "has_loop"), [("cpu", True), ("cuda", False), ("tpu", False)])
def test_components_are_looped_over_on_a_cpu_alone(platform, has_loop):
    def log_density(value, centers):
        return WeightMixture(centers, jnp.ones(3), jnp.zeros(3)).relative_log_prob(value)

    arguments = jnp.zeros(1000), jnp.zeros((3, 1000))
    exported = jax.export.export(jax.jit(jax.value_and_grad(log_density)), platforms=(platform,))(*arguments)
    assert ("stablehlo.while" in exported.mlir_module()) == has_loop
