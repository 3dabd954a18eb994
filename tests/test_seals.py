import numpy as np

from mtbkd_jax.seals import seals_of

CHAINS, DRAWS = np.arange(2), np.arange(3)
VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_a_seal_is_of_one_draw_however_many_come_with_it():
    seals = seals_of("run", CHAINS, DRAWS, VALUES)
    assert (seals.shape, seals.dtype) == ((2, 3), np.uint32)
    np.testing.assert_array_equal(seals_of("run", CHAINS[1:], DRAWS[::2], VALUES[1:, ::2]), seals[1:, ::2])
    assert seals_of("run", CHAINS[:0], DRAWS, VALUES[:0]).shape == (0, 3)


def test_the_same_numbers_have_another_seal_in_another_place():
    same = np.ones_like(VALUES)
    seals = [seals_of(place, CHAINS, DRAWS, values) for place in ("run", "other") for values in (same, VALUES)]
    assert np.unique(seals).size == 4 * 6
