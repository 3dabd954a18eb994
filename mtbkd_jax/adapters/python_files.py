"""Teachers that a Python file of the user's own makes: for whatever has no file format that runs no code."""

import importlib.util
from pathlib import Path

from mtbkd_jax.adapters.base import Adapter
from mtbkd_jax.data import sha256_of_file
from mtbkd_jax.errors import InputError


def read_python(spec: str) -> Adapter:
    """Run a Python file, and take an adapter from it.

    Args:
      spec: ``FILE.py:NAME``, where the name is of an adapter, or of a function without arguments that makes one.

    Raises:
      InputError: if there is no such file or name, or it is no adapter.
    """
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name:
        raise InputError(spec, "model", "no file or no name", "FILE.py:NAME", "Give both.")
    digest = sha256_of_file(path)
    module_spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert module_spec is not None  # the ending says how it is loaded
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    made = getattr(module, name, None)
    adapter = made() if callable(made) else made
    if not isinstance(adapter, Adapter):
        found, expected = f"{type(adapter).__name__}", "an adapter, or a function without arguments that makes one"
        action = "Make one by a function of `mtbkd_jax.adapters`, such as `from_torch`."
        raise InputError(path, name, found, expected, action)
    return adapter._replace(source=f"{adapter.source} (of {Path(path).name}, SHA-256 {digest})")
