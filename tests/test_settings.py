import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.centers import Centers
from mtbkd_jax.settings import PosteriorSettings, Powers, no_teacher, weight_mixture

CENTERS = Centers({"w": jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])}, jnp.array([0.2, 0.6, 0.2]))
SETTINGS = PosteriorSettings(power=0.1, concentration=5.0, center_scale=0.3, wide_scale=2.0)


def test_the_mixture_has_the_wide_component_the_pool_and_the_teachers():
    mixture = weight_mixture(CENTERS, SETTINGS, defensive_weight=0.1)
    np.testing.assert_array_equal(mixture.centers, [[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.testing.assert_allclose(mixture.scales[:, 0], [2.0, 0.3, 0.3, 0.3], rtol=1e-6)
    weights = np.exp(mixture.log_weights)
    assert weights.sum() == pytest.approx(1.0, rel=1e-6)
    assert weights[0] == pytest.approx(0.1, rel=1e-6)
    # Teachers share by their trust, 0.6 to 0.2; the pool has the weight of an average teacher.
    assert weights[2] / weights[3] == pytest.approx(3.0, rel=1e-5)
    assert weights[1] == pytest.approx((weights[2] + weights[3]) / 2, rel=1e-5)


def test_teachers_that_nobody_has_heard_of_share_alike():
    unheard = CENTERS._replace(mean_weights=jnp.array([1.0, 0.0, 0.0]))
    weights = np.exp(weight_mixture(unheard, SETTINGS, defensive_weight=0.1).log_weights)
    np.testing.assert_allclose(weights, [0.1, 0.3, 0.3, 0.3], rtol=1e-6)


def test_an_infinite_center_scale_leaves_the_wide_component_alone():
    mixture = weight_mixture(CENTERS, SETTINGS._replace(center_scale=jnp.inf), defensive_weight=0.1)
    value = jnp.array([3.0, 4.0])
    expected = jax.scipy.stats.norm.logpdf(value, 0.0, 2.0).sum()
    assert float(mixture.log_prob(value)) == pytest.approx(float(expected), rel=1e-6)
    assert jnp.isfinite(jax.grad(mixture.log_prob)(value)).all()


def test_no_teacher_is_no_power_and_no_center():
    assert not no_teacher(1.0).uses_teachers
    assert no_teacher(1.0)._replace(power=0.1).uses_teachers
    assert no_teacher(1.0)._replace(center_scale=0.1).uses_teachers


def test_weights_are_sampled_at_the_scale_of_the_centers_where_there_are_any():
    assert float(SETTINGS.weight_scale) == pytest.approx(0.3)
    assert float(no_teacher(2.0).weight_scale) == 2.0


def test_candidates_can_be_traced_together():
    stacked = PosteriorSettings(
        *(jnp.array(v) for v in ([0.1, 0.0], [5.0, 5.0], [0.3, jnp.inf], [2.0, 2.0], [1.0, 0.5], [1.0, 1.25]))
    )
    value = jnp.array([0.5, -0.5])

    def density(settings):
        return weight_mixture(CENTERS, settings, defensive_weight=0.1).log_prob(value)

    one_by_one = [density(jax.tree.map(lambda leaf: leaf[i], stacked)) for i in range(2)]  # noqa: B023
    np.testing.assert_allclose(jax.jit(jax.vmap(density))(stacked), one_by_one, rtol=1e-5)


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.75])
def test_powers_have_their_shares_in_each_half_of_a_chain(phase):
    powers = Powers((1.0, 0.25, 0.0), (0.2, 0.5, 0.3))
    steps = jnp.arange(1000) / 1000
    visited = np.asarray(jax.vmap(lambda step: powers.at(step, phase))(steps)).reshape(2, 500)
    for value, share in zip(powers.values, powers.shares, strict=True):
        np.testing.assert_allclose((visited == value).mean(1), share, atol=0.005)
        assert powers.share_of(value) == share
    assert powers.share_of(0.5) == 0.0


def test_before_the_first_draw_the_power_is_that_of_the_first_draw():
    powers = Powers((1.0, 0.0), (0.4, 0.6))
    assert float(powers.at(jnp.float32(-3.3))) == 1.0
    assert float(powers.at(jnp.float32(-3.3), 0.5)) == 0.0
