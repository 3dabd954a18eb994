import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.tree import (
    tree_add_scaled,
    tree_is_finite,
    tree_norm,
    tree_scale,
    tree_size,
    tree_vdot,
    tree_where,
)

TREE = {"a": jnp.array([3.0, 0.0]), "b": (jnp.array([[4.0]]), jnp.array(12.0))}


def same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


def test_sums_and_multiples_are_taken_leaf_by_leaf():
    same(tree_add_scaled(TREE, 2.0, TREE), jax.tree.map(lambda leaf: 3 * leaf, TREE))
    same(tree_scale(0.5, TREE), jax.tree.map(lambda leaf: leaf / 2, TREE))


def test_the_inner_product_the_length_and_the_size_are_those_of_all_leaves_together():
    assert float(tree_vdot(TREE, tree_scale(2.0, TREE))) == 338.0
    assert float(tree_norm(TREE)) == 13.0
    assert tree_size(TREE) == 4


@pytest.mark.parametrize("condition", [True, False])
def test_where_chooses_whole_trees(condition):
    other = tree_scale(-1.0, TREE)
    same(tree_where(jnp.array(condition), TREE, other), TREE if condition else other)


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf, -jnp.inf])
def test_one_entry_that_is_not_finite_is_enough(wrong):
    assert tree_is_finite(TREE)
    assert not tree_is_finite(TREE | {"a": jnp.array([0.0, wrong])})
