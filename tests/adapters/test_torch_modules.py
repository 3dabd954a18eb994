"""Tests of mtbkd_jax.adapters.torch_modules; skipped where PyTorch is not installed."""

import numpy as np
import pytest

from mtbkd_jax.adapters import from_torch
from mtbkd_jax.errors import InputError

torch = pytest.importorskip("torch")


def test_a_module_with_a_part_in_training_mode_is_refused():
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout()).eval()
    module[1].train()
    with pytest.raises(InputError, match=r"Sequential: mode: found training mode in 1, and in 1 parts in all.*\.eval"):
        from_torch(module)


def test_inputs_are_given_in_the_type_of_the_parameters():
    module = torch.nn.Linear(4, 3).to(torch.bfloat16).eval()
    outputs = from_torch(module).predict(np.ones((2, 4)))
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, module(torch.ones(2, 4, dtype=torch.bfloat16)).detach().float().numpy())


def test_whole_numbers_stay_whole():
    module = torch.nn.EmbeddingBag(10, 3).eval()
    np.testing.assert_array_equal(
        from_torch(module).predict(np.array([[1, 2], [3, 4]])),
        module(torch.tensor([[1, 2], [3, 4]])).detach().numpy(),
    )


def test_a_module_that_returns_something_else_is_refused():
    class Pair(torch.nn.Module):
        def forward(self, inputs):
            return inputs, inputs

    with pytest.raises(InputError, match="Pair: output: found a tuple, expected a tensor"):
        from_torch(Pair().eval()).predict(np.ones((2, 4)))
