"""What an installed package promises: declared dependencies, a quick import, names that resolve."""

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mtbkd_jax

REPOSITORY = Path(__file__).parent.parent
EXTRAS_OF_MODULES = ("endpoint", "onnx", "parquet", "tensorboard", "torch", "transformers")
"""Extras with libraries that a module of the package imports; the others are for accelerators and tests."""
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def imported_modules(source: Path) -> set[str]:
    """The top-level names of everything that a file imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_imported_distribution_is_declared_and_the_reverse():
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + [line for name in EXTRAS_OF_MODULES for line in extras[name]]
    declared = {normalised(re.match(r"[\w.-]+", line)[0]) for line in lines}
    imported = set().union(*map(imported_modules, (REPOSITORY / "mtbkd_jax").rglob("*.py")))
    distributions = importlib.metadata.packages_distributions()
    # What is not installed here has the name of its module.
    needed = {
        normalised(distributions.get(name, [name])[0])
        for name in imported - set(sys.stdlib_module_names) - {"mtbkd_jax"}
    }
    assert needed - declared == set()
    assert declared - needed == set()


@pytest.mark.parametrize("heavy", ["matplotlib", "sklearn", "arviz", "pandas"])
def test_importing_the_package_leaves_what_few_functions_need_alone(heavy):
    # In a process of its own, since other tests import them.
    program = f"import mtbkd_jax, sys; print({heavy!r} in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "False"


def test_every_public_name_resolves():
    assert len(mtbkd_jax.__all__) == len(set(mtbkd_jax.__all__))
    for name in mtbkd_jax.__all__:
        assert getattr(mtbkd_jax, name) is not None
    assert set(mtbkd_jax.__all__) <= set(dir(mtbkd_jax))


def test_the_command_exists():
    module, function = PROJECT["scripts"]["mtbkd"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_readme_has_exactly_one_block_for_each_command():
    blocks = re.findall(r"^```\w*\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert sum("pytest" in block for block in blocks) == 1
    assert sum("mtbkd run digits" in block for block in blocks) == 1
