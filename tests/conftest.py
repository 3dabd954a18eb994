"""Checks that hold during every test: annotations are true, and arrays are not converted or broadcast silently."""

import jax
from jaxtyping import install_import_hook

# Before anything imports the package: from here on a call whose arguments contradict its annotations raises.
install_import_hook("mtbkd_jax", "beartype.beartype")
