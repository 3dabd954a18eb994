"""Studies that stand behind the figures of the documentation; each is run with ``python -m experiments.NAME``."""

import contextlib
import os

import jax

# Chains run side by side, one on each device; JAX takes this before its first array.
with contextlib.suppress(RuntimeError):
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
