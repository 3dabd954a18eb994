"""Simulation 2 over the number of labels: do teachers that are sure outside their domain hurt?

Run as ``python -m experiments.simulation2``. 24,000 inputs have teacher outputs and some of them a label; 16,000
labelled points are the test; the student has 115 parameters. ``experiments.simulation_study`` says what is compared.
Writes ``results.json`` (every draw and what was chosen) and ``table.md`` to the folder of this file or to ``--out``,
and replaces such files only where ``--overwrite`` is given.
"""

from experiments.simulation2.design import DESIGN, SHARE_ELSEWHERE
from experiments.simulation_study import run_study
from mtbkd_jax.students import mlp

LABEL_COUNTS = (50, 100, 300, 1000, DESIGN.num_train)
STUDENT = mlp(num_features=5, hidden=(10,), num_classes=5)

if __name__ == "__main__":
    run_study("simulation2", str(__doc__), DESIGN, STUDENT, LABEL_COUNTS, share_elsewhere=SHARE_ELSEWHERE)
