import jax
import numpy as np

from mtbkd_jax.folds import deal_folds

# Ten patients with six images each.
patients = np.repeat([f"patient {i}" for i in range(10)], 6)
labels = np.tile([0, 1, 1, 0, 1, 0], 10)


def num_split(groups):
    folds = deal_folds(jax.random.key(0), labels, 5, groups)
    return sum(np.unique(folds[patients == patient]).size > 1 for patient in np.unique(patients))


print("patients in more than one fold, without groups:", num_split(None))
print("patients in more than one fold, with groups:", num_split(patients))
