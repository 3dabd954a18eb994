"""What holds during every test: annotations are checked, and arrays of different ranks are not broadcast silently.

Strict dtype promotion cannot be asked for as well: optax's Adam and the warm-ups of BlackJAX and NumPyro rely on the
standard one.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")

# Tests leave nothing in the home of whoever runs them, and do not depend on what is there. What one of them compiles
# is kept for the others, in a folder that the first process makes and removes: workers, and the programs that tests
# start, find it in their environment. Many tests fit the same small student.
if "MTBKD_TESTS_COMPILED" not in os.environ:
    os.environ["MTBKD_TESTS_COMPILED"] = tempfile.mkdtemp(prefix="mtbkd_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["MTBKD_TESTS_COMPILED"], ignore_errors=True)
for option, value in {
    "jax_compilation_cache_dir": os.environ["MTBKD_TESTS_COMPILED"],
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}.items():
    jax.config.update(option, value)
    os.environ[option.upper()] = str(value)

# Before anything imports the package: from here on a call that contradicts its annotations raises.
install_import_hook("mtbkd_jax", "beartype.beartype")

# Fixtures that several modules of tests share. They import the package: named here, they are imported after the hook.
pytest_plugins = ["tests.small_teachers"]

_MANY_MAPS = 30_000


@pytest.fixture(autouse=True)
def _few_memory_maps() -> Iterator[None]:
    """Forget what was compiled once it holds many memory maps: Linux gives a process 65,530, and then JAX crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
