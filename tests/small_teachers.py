"""Two small teachers, in a directory and in files, and what the message of a refusal must have."""

from contextlib import contextmanager

import numpy as np
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.teacher_writer import write_teacher_outputs

IDS = np.array([f"protein {row} ü" for row in range(10)])
CLASS_NAMES = ("nucleus", "membrane", "cytoplasm")
LOGITS = np.arange(6.0).reshape(2, 3)


@pytest.fixture
def logits():
    """Logits of two teachers: [examples, teachers, classes]."""
    return np.random.default_rng(0).normal(size=(10, 2, 3)).astype(np.float32)


@pytest.fixture
def directory(tmp_path, logits):
    path = tmp_path / "outputs"
    write_teacher_outputs(
        path,
        {"a": logits[:, 0], "b/../c": logits[:, 1]},
        ids=IDS,
        class_names=CLASS_NAMES,
        softening={"a": 2.0},
        sources={"a": "model A, revision 3"},
    )
    return path


@pytest.fixture
def save(tmp_path):
    """Save the outputs of one teacher to an NPZ file and return ``name=FILE``."""

    def save(name="a", **fields):
        np.savez(tmp_path / f"{name}.npz", **fields)
        return f"{name}={tmp_path / name}.npz"

    return save


@pytest.fixture
def save_csv(tmp_path):
    def save_csv(text, name="a"):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")
        return f"{name}={tmp_path / name}.csv"

    return save_csv


@contextmanager
def refused(where, field, found, action):
    """Expect an error whose message names the place, the field, what was found, what was expected and what to do."""
    with pytest.raises(InputError) as caught:
        yield
    error = caught.value
    assert error.where.endswith(where)
    assert error.field.endswith(field)
    assert error.found.startswith(found)
    assert error.expected
    assert error.action.startswith(action)
    assert str(error) == f"{error.where}: {error.field}: found {error.found}, expected {error.expected}. {error.action}"
