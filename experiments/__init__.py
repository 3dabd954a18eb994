"""Studies that stand behind the figures of the documentation; each is run with ``python -m experiments.NAME``."""

from mtbkd_jax.machine import use_machine

use_machine()
