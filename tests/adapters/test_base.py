"""Tests of mtbkd_jax.adapters.base, and that an adapter imports its own framework alone."""

import os
import subprocess
import sys

import pytest

from mtbkd_jax.adapters import from_callable
from mtbkd_jax.errors import InputError


def test_names_of_classes_are_checked_when_the_adapter_is_made():
    with pytest.raises(InputError, match="from_callable: class_names"):
        from_callable(len, class_names=["a", "a"])


def test_no_framework_is_imported_before_it_is_needed():
    # In a process of its own, since other tests import them.
    program = "import mtbkd_jax.adapters, sys; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    frameworks = {"flax", "httpx", "onnxruntime", "sklearn", "tenacity", "torch", "transformers"}
    assert frameworks & set(run.stdout.split()) == set()
