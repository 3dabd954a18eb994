"""Adapters: teachers of any framework as functions of a batch of inputs, and what puts their outputs in a directory.

A framework is imported when an adapter for it is made, and no sooner.
"""

from mtbkd_jax.adapters.base import Adapter, from_callable
from mtbkd_jax.adapters.closed_models import from_endpoint
from mtbkd_jax.adapters.endpoint import Endpoint, EndpointConfig
from mtbkd_jax.adapters.flax_modules import from_linen, from_nnx
from mtbkd_jax.adapters.label_words import from_language_model, read_language_model
from mtbkd_jax.adapters.onnx_models import from_onnx, read_onnx
from mtbkd_jax.adapters.prompts import Prompt, make_prompt
from mtbkd_jax.adapters.python_files import read_python
from mtbkd_jax.adapters.sklearn_estimators import from_sklearn
from mtbkd_jax.adapters.teaching import Questions, make_questions, read_questions, teach
from mtbkd_jax.adapters.torch_modules import from_torch
from mtbkd_jax.adapters.transformers_models import (
    from_image_classifier,
    from_sequence_classifier,
    read_image_classifier,
    read_sequence_classifier,
)

__all__ = [
    "Adapter",
    "Endpoint",
    "EndpointConfig",
    "Prompt",
    "Questions",
    "from_callable",
    "from_endpoint",
    "from_image_classifier",
    "from_language_model",
    "from_linen",
    "from_nnx",
    "from_onnx",
    "from_sequence_classifier",
    "from_sklearn",
    "from_torch",
    "make_prompt",
    "make_questions",
    "read_image_classifier",
    "read_language_model",
    "read_onnx",
    "read_python",
    "read_questions",
    "read_sequence_classifier",
    "teach",
]
