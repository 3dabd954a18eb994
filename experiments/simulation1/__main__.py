"""Simulation 1 over the number of labels: do teachers that are sure outside their domain hurt?

Run as ``python -m experiments.simulation1``. 12,000 inputs have teacher outputs and some of them a label; 8,000
labelled points are the test; the student has 27 parameters. ``experiments.simulation_study`` says what is compared.
Writes ``results.json`` (every draw and what was chosen), ``table.md`` and ``map.png`` (where the students of the
first draw are uncertain) to the folder of this file or to ``--out``, and replaces such files only where
``--overwrite`` is given.
"""

from experiments.simulation1.design import DESIGN
from experiments.simulation1.map import places, uncertainty_map
from experiments.simulation_study import Views, run_study
from mtbkd_jax.students import mlp

LABEL_COUNTS = (50, 100, 300, 1000, DESIGN.num_train)
STUDENT = mlp(num_features=2, hidden=(5,), num_classes=2)

if __name__ == "__main__":
    run_study("simulation1", str(__doc__), DESIGN, STUDENT, LABEL_COUNTS, views=Views(places(), uncertainty_map))
