"""Alignment: reorders the units of one network so that its parameters come close to those of another.

Hidden units can be permuted, with their incoming and outgoing weights, and the network computes the same function. So
networks that agree as functions may be far apart as parameters, and a mixture over parameters would count one mode
several times. Weight matching (Ainsworth, Hayase and Srinivasa, 2023, "Git Re-Basin") looks for

    argmin_π ||reference − π(params)||² = argmax_π ⟨reference, π(params)⟩

one layer at a time: with the other layers held fixed it is a linear assignment problem. The joint problem is NP-hard,
so that what is found is a local optimum; it never lies farther than where it began.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from mtbkd_jax.checks import check_params
from mtbkd_jax.errors import InputError
from mtbkd_jax.tree import named_leaves, tree_add_scaled, tree_scale
from mtbkd_jax.types import Params, Scalar

Layer: TypeAlias = Mapping[str, int]
"""Units that can be permuted: every leaf that they have a part in, by name, and its axis that runs over them."""

_Leaves: TypeAlias = dict[str, np.ndarray]

_ROUNDING = 1e-12
"""What a gain must exceed, relative to all that it is a sum of: less may be rounding, and go in circles."""


def mlp_layers(num_hidden: int) -> list[Layer]:
    """The hidden layers of ``mlp``.

    >>> mlp_layers(1)
    [{'Dense_0.kernel': 1, 'Dense_0.bias': 0, 'Dense_1.kernel': 0}]
    """
    return [
        {f"Dense_{layer}.kernel": 1, f"Dense_{layer}.bias": 0, f"Dense_{layer + 1}.kernel": 0}
        for layer in range(num_hidden)
    ]


def cnn_layers(num_convolutions: int) -> list[Layer]:
    """The channels of each convolution of ``cnn``.

    The group normalisation between them has one group, so that it does not mind the order of the channels.
    """
    readers = [(f"Conv_{layer}.kernel", 2) for layer in range(1, num_convolutions)] + [("Dense_0.kernel", 0)]
    return [
        {
            f"Conv_{layer}.kernel": 3,
            f"Conv_{layer}.bias": 0,
            f"GroupNorm_{layer}.scale": 0,
            f"GroupNorm_{layer}.bias": 0,
            reader: axis,
        }
        for layer, (reader, axis) in zip(range(num_convolutions), readers, strict=True)
    ]


def align_params(params: Params, reference: Params, layers: Sequence[Layer]) -> Params:
    """Permute the units of ``params`` to bring it close to ``reference``; it stays the same function.

    Two starts are tried, and the nearer end is kept: the order that is given, and the one that matches each layer by
    its incoming weights alone, from the first layer on. The latter finds every permutation of ``reference`` itself if
    no two units of a layer have the same incoming weights.

    Args:
      params: of one network, not stacked.
      reference: of another one with the same architecture.
      layers: what can be permuted, from the inputs to the outputs: ``mlp_layers``, ``cnn_layers``, or the
        layers of another network. Nothing can tell whether a network permits them: that is up to the caller.

    Raises:
      InputError: if the trees, shapes or types differ, a number is not finite, or there is no such layer.
    """
    check_params(reference, reference, "reference")
    check_params(params, reference, "params")
    target, start = (
        {name: np.asarray(leaf, np.float64) for name, leaf in named_leaves(tree).items()}
        for tree in (reference, params)
    )
    _check_layers(layers, target)
    ends = [_descend(leaves, target, layers) for leaves in (start, _match_incoming(start, target, layers))]
    nearest = max(ends, key=lambda leaves: sum(np.vdot(target[name], leaf) for name, leaf in leaves.items()))
    aligned = [jnp.asarray(nearest[name], leaf.dtype) for name, leaf in named_leaves(params).items()]
    return jax.tree.unflatten(jax.tree.structure(params), aligned)


def average_params(restarts: Sequence[Params], layers: Sequence[Layer]) -> Params:
    """One center from several distillations: their mean, after all have been aligned to the first.

    The restarts differ in the order of their units and in where the climb ended; the order is undone, and the mean is
    over what is left. Where that is more than noise the mean lies on a barrier between them (``barrier`` says how
    high), and any one of them is the better center.

    Args:
      restarts: parameters of networks with the same architecture, one or more.
      layers: as for ``align_params``.

    Raises:
      InputError: if there are none, or they cannot be aligned.
    """
    if not restarts:
        raise InputError("average_params", "restarts", "none", "one or more", "Distil the center at least once.")
    reference, *others = restarts
    aligned = [reference, *(align_params(params, reference, layers) for params in others)]
    return jax.tree.map(lambda *leaves: jnp.mean(jnp.stack(leaves), axis=0), *aligned)


def barrier(loss: Callable[[Params], Scalar], a: Params, b: Params, *, num_points: int = 25) -> Scalar:
    """How far the loss rises above a straight line on the way from one network to another.

        max_t loss((1 − t) a + t b) − ((1 − t) loss(a) + t loss(b)),        t = 0, ..., 1

    (Entezari, Sedghi, Saukh and Neyshabur, 2022, "The role of permutation invariance in linear mode connectivity of
    neural networks"). Two networks in one basin have none. It is never negative: at both ends the rise is 0.

    Args:
      loss: ``params -> loss``, such as a negative log density in nats.
      a: parameters of one network.
      b: parameters of the other.
      num_points: how many values of t, both ends among them.

    >>> double_well = lambda params: jnp.square(jnp.square(params["w"]) - 1)
    >>> float(barrier(double_well, {"w": jnp.array(-1.0)}, {"w": jnp.array(1.0)}))
    1.0
    """
    if num_points < 3:
        action = "Raise it: there is nothing to see at the ends alone."
        raise InputError("num_points", "value", f"{num_points}", "three or more", action)
    ends = loss(a), loss(b)

    def rise(t):
        return loss(tree_add_scaled(tree_scale(1 - t, a), t, b)) - ((1 - t) * ends[0] + t * ends[1])

    # The ends themselves are left out: rounding would make them a little more or less than 0.
    return jnp.maximum(0.0, jnp.max(jax.lax.map(rise, jnp.linspace(0.0, 1.0, num_points)[1:-1])))


def _check_layers(layers: Sequence[Layer], leaves: _Leaves) -> None:
    for index, layer in enumerate(layers):
        sizes = {}
        for name, axis in layer.items():
            if name not in leaves or not 0 <= axis < leaves[name].ndim:
                found = f"axis {axis} of shape {leaves[name].shape}" if name in leaves else "no such leaf"
                action = "Name the layers of this very architecture."
                raise InputError(f"layers[{index}]", name, found, "a leaf with this axis", action)
            sizes[name] = leaves[name].shape[axis]
        if len(set(sizes.values())) != 1:
            action = "Name the axis that runs over the units."
            raise InputError(f"layers[{index}]", "units", f"{sizes}", "the same number along each axis", action)


def _match_incoming(leaves: _Leaves, target: _Leaves, layers: Sequence[Layer]) -> _Leaves:
    for index, layer in enumerate(layers):
        later = {name for other in layers[index + 1 :] for name in other}
        order = _best_order(_similarities(leaves, target, layer, layer.keys() - later))
        leaves = _reordered(leaves, layer, order)
    return leaves


def _descend(leaves: _Leaves, target: _Leaves, layers: Sequence[Layer]) -> _Leaves:
    """Match one layer after the other until none can gain."""
    is_settled = False
    while not is_settled:
        is_settled = True
        for layer in layers:
            scores = _similarities(leaves, target, layer, layer)
            order = _best_order(scores)
            gain = scores[np.arange(len(order)), order].sum() - np.trace(scores)
            if gain > _ROUNDING * np.abs(scores).sum():
                leaves = _reordered(leaves, layer, order)
                is_settled = False
    return leaves


def _similarities(
    leaves: _Leaves, target: _Leaves, layer: Layer, names: Iterable[str]
) -> Float[np.ndarray, "units units"]:
    """Inner products of each unit of the target (rows) with each unit of the leaves, summed over the named leaves."""

    def by_unit(array, axis):
        units = np.moveaxis(array, axis, 0)
        return units.reshape(len(units), -1)

    return sum(by_unit(target[name], layer[name]) @ by_unit(leaves[name], layer[name]).T for name in names)


def _best_order(scores: Float[np.ndarray, "units units"]) -> Int[np.ndarray, " units"]:
    return linear_sum_assignment(scores, maximize=True)[1]


def _reordered(leaves: _Leaves, layer: Layer, order: Int[np.ndarray, " units"]) -> _Leaves:
    return leaves | {name: np.take(leaves[name], order, axis) for name, axis in layer.items()}
