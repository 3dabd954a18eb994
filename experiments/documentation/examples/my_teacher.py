"""What ``mtbkd teach --adapter python --model my_teacher.py:forest`` runs."""

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from mtbkd_jax.adapters import from_sklearn


def forest():
    data = np.load("test.npz")
    return from_sklearn(RandomForestClassifier(n_estimators=20, random_state=0).fit(data["inputs"], data["labels"]))
