import numpy as np

from mtbkd_jax.component_evidence import worth_sampling


def test_components_worth_sampling_come_in_the_order_of_their_weight():
    weights = np.array([0.2, 1e-5, 0.5, 0.2999])
    assert worth_sampling(weights, 4).tolist() == [2, 3, 0]
    assert worth_sampling(weights, 2).tolist() == [2, 3]
