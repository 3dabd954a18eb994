"""Programs keep what they have compiled, where their user wants it."""

import os
import subprocess
import sys

import pytest

from mtbkd_jax.machine import remove_oldest

PROGRAM = """
from mtbkd_jax.machine import use_machine
use_machine()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: x + 1)(1.0), jax.device_count())
"""


def run_program(tmp_path, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(tmp_path / "caches")} | variables
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    ).stdout.split()


def entries(folder):
    return sorted(path.name for path in folder.rglob("*-cache"))


def test_what_was_compiled_is_kept_and_used_again(tmp_path):
    assert run_program(tmp_path) == ["2.0", str(os.cpu_count())]
    kept = entries(tmp_path / "caches" / "mtbkd_jax")
    assert kept
    run_program(tmp_path)
    assert entries(tmp_path / "caches" / "mtbkd_jax") == kept


@pytest.mark.parametrize("variable", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_a_user_may_keep_it_elsewhere_or_nowhere(tmp_path, variable):
    elsewhere = tmp_path / "elsewhere"
    run_program(tmp_path, **{variable: str(elsewhere) if variable.endswith("DIR") else "false"})
    assert not entries(tmp_path / "caches")
    assert bool(entries(elsewhere)) == variable.endswith("DIR")


def test_what_was_not_used_for_the_longest_time_is_removed(tmp_path):
    for age, name in enumerate(["new", "old", "oldest"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "oldest", (2e9, 1e9 - 2))  # written first and read last
    remove_oldest(tmp_path, 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "oldest"]
    remove_oldest(tmp_path, 200)
    assert len(list(tmp_path.iterdir())) == 2


def test_there_may_be_nothing_to_remove(tmp_path):
    remove_oldest(tmp_path / "not there", 0)
