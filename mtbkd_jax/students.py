"""Students: the networks whose parameters are sampled, as pairs of pure functions.

A student is ``init(key) -> params`` and ``apply(params, inputs) -> logits``. Everything that is sampled is in
``params``; a network that keeps running state (batch normalisation) has no log density and is refused. A frozen
backbone is not part of the student: compute its features once and pass them as the inputs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbkd_jax.checks import check_whole
from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key, Params


class Student(NamedTuple):
    """A classifier as two pure functions.

    Attributes:
      init: ``key -> params``.
      apply: ``(params, inputs [examples, ...]) -> logits [examples, classes]``.
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array], Array]


def num_parameters(student: Student) -> int:
    """Count the student's parameters without computing any.

    >>> num_parameters(mlp(num_features=2, hidden=(5,), num_classes=2))
    27
    """
    shapes = jax.eval_shape(student.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def check_student(student: Student, input_shape: Sequence[int], num_classes: int, where: str) -> None:
    """Check that a student takes examples of this shape and gives a logit for each class; nothing is computed.

    Raises:
      InputError: if it does not.
    """
    params = jax.eval_shape(student.init, jax.random.key(0))
    try:
        logits = jax.eval_shape(student.apply, params, jax.ShapeDtypeStruct((2, *input_shape), jnp.float32))
    except Exception as error:  # Every network complains in its own way.
        found = f"examples of shape {tuple(input_shape)} ({str(error).partition('. (')[0]})"
        action = "Make the student for these inputs."
        raise InputError(where, "inputs", found, "the shape that the student was made for", action) from error
    if logits.shape != (2, num_classes):
        found, expected = f"logits of shape {logits.shape} for two examples", f"(2, {num_classes}), one for each class"
        raise InputError(where, "student", found, expected, "Make the student for the teachers' classes.")


def from_linen(module: nn.Module, input_shape: Sequence[int]) -> Student:
    """Make a student from a Flax linen module.

    Args:
      module: maps inputs ``[examples, *input_shape]`` to logits ``[examples, classes]``.
      input_shape: shape of one example.

    Raises:
      InputError: if the module has variables other than parameters (running statistics, for example).
    """
    example = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    collections = set(jax.eval_shape(module.init, jax.random.key(0), example))
    _refuse_running_state("linen module", sorted(collections - {"params"}))

    @jax.jit  # one compilation, where Flax's own way is one for the initialiser of every parameter
    def init(key: Key) -> Params:
        return module.init(key, jnp.zeros(example.shape, example.dtype))["params"]

    def apply(params: Params, inputs: Array) -> Array:
        return cast(Array, module.apply({"params": params}, inputs))

    return Student(init, apply)


def from_nnx(build: Callable[..., Callable[[Array], Array]]) -> Student:
    """Make a student from a Flax nnx module.

    Args:
      build: ``nnx.Rngs -> nnx.Module``; called once to learn the structure, and in every ``init``.

    Raises:
      InputError: if the module has variables other than ``nnx.Param``.
    """
    from flax import nnx

    abstract = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    graph, *states = nnx.split(abstract, nnx.Param, ...)
    rest = states[1]
    _refuse_running_state("nnx module", sorted(".".join(map(str, path)) for path, _ in nnx.to_flat_state(rest)))

    def init(key: Key) -> Params:
        return nnx.state(build(nnx.Rngs(key)), nnx.Param)

    def apply(params: Params, inputs: Array) -> Array:
        return nnx.merge(graph, params, rest)(inputs)

    return Student(init, apply)


class _MLP(nn.Module):
    hidden: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(self, inputs):
        values = inputs.reshape(inputs.shape[0], -1)
        for width in self.hidden:
            values = nn.relu(nn.Dense(width)(values))
        return nn.Dense(self.num_classes)(values)


def mlp(*, num_features: int, hidden: Sequence[int], num_classes: int) -> Student:
    """A multilayer perceptron with ReLU units; inputs with more than one axis are flattened.

    Raises:
      InputError: if a number is not a whole one above zero.

    >>> student = mlp(num_features=4, hidden=(8, 8), num_classes=3)
    >>> student.apply(student.init(jax.random.key(0)), jnp.zeros((5, 4))).shape
    (5, 3)
    """
    check_whole("mlp", 1, num_features=num_features, num_classes=num_classes, **_by_layer(hidden))
    return from_linen(_MLP(tuple(hidden), num_classes), (num_features,))


class _CNN(nn.Module):
    channels: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(self, inputs):
        values = inputs if inputs.ndim == 4 else inputs[..., None]
        for width in self.channels:
            # Group normalisation keeps no running state, so that the network is a function of its arguments.
            values = nn.relu(nn.GroupNorm(num_groups=1)(nn.Conv(width, (3, 3))(values)))
            values = nn.max_pool(values, (2, 2), strides=(2, 2), padding="SAME")
        return nn.Dense(self.num_classes)(values.mean(axis=(1, 2)))


def cnn(*, image_shape: Sequence[int], channels: Sequence[int], num_classes: int) -> Student:
    """A small convolutional network: 3x3 convolutions, group normalisation, pooling by two, global mean, linear head.

    Args:
      image_shape: ``(height, width)`` or ``(height, width, colours)``.
      channels: width of each convolution.
      num_classes: number of logits.

    Raises:
      InputError: if a number is not a whole one above zero.
    """
    check_whole("cnn", 1, num_classes=num_classes, **_by_layer(channels))
    return from_linen(_CNN(tuple(channels), num_classes), tuple(image_shape))


class OrdinalParams(NamedTuple):
    """Parameters of an ``ordinal`` student.

    Attributes:
      network: of the network that gives the location.
      cutpoints: first the mean of all of them, and then, before a softplus, how far each lies beyond the one before
        it, ``[classes - 1]``; all zero are evenly spaced around zero.
    """

    network: Params
    cutpoints: Float[Array, "*draws cutpoints"]


def ordinal(network: Student, num_classes: int) -> Student:
    """A student for classes that are ordered: the proportional-odds model (McCullagh, 1980).

        P(y ≤ c | x) = σ(b_c − f(x)),    b_1 < … < b_{C−1},
        q_c = σ(b_c − f) − σ(b_{c−1} − f),    b_0 = −∞, b_C = ∞

    Its logits are log q, so that likelihood, priors, teachers and metrics are those of any classifier; a softening
    other than one and a temperature of the predictions are powers of q, as they are of a softmax.

    Args:
      network: gives the location f, ``[examples, 1]``.
      num_classes: C, at least two; class 0 is the lowest.

    Raises:
      InputError: if there are fewer than two classes.

    >>> student = ordinal(mlp(num_features=4, hidden=(8,), num_classes=1), num_classes=5)
    >>> log_probs = student.apply(student.init(jax.random.key(0)), jnp.zeros((2, 4)))
    >>> jnp.exp(log_probs).sum(axis=1).round(4).tolist()
    [1.0, 1.0]
    """
    check_whole("ordinal", 2, num_classes=num_classes)

    def init(key: Key) -> OrdinalParams:
        return OrdinalParams(network.init(key), jnp.zeros(num_classes - 1))

    def apply(params: OrdinalParams, inputs: Array) -> Array:
        beyond_first = jnp.pad(jnp.cumsum(jax.nn.softplus(params.cutpoints[1:])), (1, 0))
        cutpoints = params.cutpoints[0] + beyond_first - beyond_first.mean()
        above = cutpoints[None] - network.apply(params.network, inputs)
        # σ(u) − σ(l) = σ(u) σ(−l) (1 − exp(l − u)), in which nothing cancels; the ends have no u, or no l.
        below_upper = jnp.pad(jax.nn.log_sigmoid(above), ((0, 0), (0, 1)))
        above_lower = jnp.pad(jax.nn.log_sigmoid(-above), ((0, 0), (1, 0)))
        of_gaps = jnp.pad(jnp.log(-jnp.expm1(-jnp.diff(cutpoints))), 1)
        return below_upper + above_lower + of_gaps[None]

    return Student(init, apply)


def _by_layer(widths: Sequence[int]) -> dict[str, int]:
    return {f"width of layer {layer}": width for layer, width in enumerate(widths)}


def _refuse_running_state(where: str, names: list[str]) -> None:
    if names:
        raise InputError(
            where,
            "variables",
            f"besides parameters: {', '.join(names)}",
            "parameters alone",
            "Use a normalisation without running state (LayerNorm, GroupNorm), and no dropout.",
        )
