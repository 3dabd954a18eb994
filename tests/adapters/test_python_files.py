"""Tests of mtbkd_jax.adapters.python_files."""

import numpy as np
import pytest

from mtbkd_jax.adapters import read_python
from mtbkd_jax.errors import InputError

FILE = """
from mtbkd_jax.adapters import from_callable
same = from_callable(lambda inputs: inputs, source="the same")
def negative():
    return from_callable(lambda inputs: -inputs, source="its negative")
number = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "my:teachers.py").write_text(FILE)
    return tmp_path / "my:teachers.py"


def test_an_adapter_or_what_makes_one_is_taken_from_a_file(file):
    inputs = np.ones((2, 2))
    np.testing.assert_array_equal(read_python(f"{file}:same").predict(inputs), inputs)
    adapter = read_python(f"{file}:negative")
    np.testing.assert_array_equal(adapter.predict(inputs), -inputs)
    assert adapter.source.startswith("its negative (of my:teachers.py, SHA-256 ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{file}", "no file or no name"),
        ("{file}:", "no file or no name"),
        ("teachers:same", "no file or no name"),
        ("{file}:number", "number: found int"),
        ("{file}:missing", "missing: found NoneType"),
        ("{file}x.py:same", "no such file"),
    ],
)
def test_what_is_no_adapter_is_refused(file, spec, message):
    with pytest.raises(InputError, match=message):
        read_python(spec.format(file=file))
