import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.examples import Examples
from mtbkd_jax.function_prior import dirichlet_components, responsibilities, teacher_informed_prior

PROBS = jnp.array([[[0.9, 0.05, 0.05], [0.05, 0.9, 0.05]], [[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]]])
LOGITS = jnp.array([[2.0, 0.0, -1.0], [0.3, 1.0, 0.1]])


def examples_with(log_weights, concentration=5.0):
    components = dirichlet_components(PROBS, jnp.asarray(log_weights, jnp.float32), concentration)
    return Examples(jnp.zeros((2, 1)), jnp.full(2, -1), components)


EVEN = examples_with(np.log(np.full((2, 3), 1 / 3)))


def test_power_multiplies_the_density():
    whole, part = (teacher_informed_prior(power=power)(LOGITS, EVEN) for power in (1.0, 0.25))
    np.testing.assert_allclose(part, 0.25 * whole, rtol=1e-6)


def test_temperature_divides_the_logits():
    softened = teacher_informed_prior(temperature=2.0)(LOGITS, EVEN)
    np.testing.assert_allclose(softened, teacher_informed_prior()(LOGITS / 2, EVEN), rtol=1e-6)


def test_with_all_weight_on_the_flat_component_nothing_pulls():
    flat = examples_with([[0.0, -np.inf, -np.inf]] * 2)
    gradient = jax.grad(lambda logits: teacher_informed_prior()(logits, flat).sum())(LOGITS)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-7)


def test_logits_far_apart_and_teachers_sure_of_themselves_leave_a_finite_gradient():
    sure = examples_with([[-np.inf, np.log(0.5), np.log(0.5)]] * 2, concentration=50.0)
    logits = jnp.array([[-300.0, 300.0, 0.0], [-300.0, 0.0, 300.0]])
    value, gradient = jax.value_and_grad(lambda z: teacher_informed_prior()(z, sure).sum())(logits)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    # Teacher 1 of the first example is the one that agrees; a density outside log space would be zero for both.
    assert float(responsibilities(logits, sure.components)[0, 2]) == pytest.approx(1.0)


def test_responsibility_goes_to_the_teacher_that_the_student_follows():
    shares = responsibilities(jnp.log(PROBS[:, 0] + 1e-6), EVEN.components)
    np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-6)
    assert (shares.argmax(1) == 1).all()


@pytest.mark.parametrize("arguments", [{"power": -1.0}, {"temperature": 0.0}, {"power": np.nan}])
def test_wrong_numbers_of_the_prior_are_refused(arguments):
    with pytest.raises(InputError):
        teacher_informed_prior(**arguments)


@pytest.mark.parametrize("concentration", [0.0, -1.0])
def test_a_concentration_that_is_not_positive_is_refused(concentration):
    with pytest.raises(InputError, match="concentration"):
        examples_with(np.zeros((2, 3)), concentration)
