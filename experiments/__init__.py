"""Studies that stand behind the figures of the documentation; each is run with ``python -m experiments.NAME``."""
