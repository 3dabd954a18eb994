"""Three classes around the origin; one teacher knows the left half of the plane, the other the right half."""

import numpy as np

rng = np.random.default_rng(0)
names = np.array(["cat", "dog", "eel"])


def examples(size):
    inputs = rng.normal(size=(size, 2))
    angle = np.arctan2(inputs[:, 1], inputs[:, 0])
    return inputs.astype(np.float32), np.floor((angle + np.pi) / (2 * np.pi) * 3).astype(int).clip(0, 2)


def taught(labels, at_home):
    """Logits of a teacher that is always sure of itself, and away from home of a class drawn at random."""
    said = np.where(at_home, labels, rng.integers(3, size=labels.size))
    return (4.0 * np.eye(3)[said] + rng.normal(size=(labels.size, 3))).astype(np.float32)


inputs, labels = examples(400)
ids = np.array([f"example {i}" for i in range(400)])
known = np.where(np.arange(400) < 60, labels, -1)
np.savez("train.npz", inputs=inputs, labels=known, ids=ids, class_names=names)
for name, at_home in {"west": inputs[:, 0] < 0, "east": inputs[:, 0] >= 0}.items():
    np.savez(f"{name}.npz", logits=taught(labels, at_home), ids=ids)

# A third teacher as somebody might send it: a table, sorted by something else.
probs = np.exp(taught(labels, inputs[:, 1] > 0))
rows = np.column_stack([ids, (probs / probs.sum(1, keepdims=True)).round(4)])[::-1]
np.savetxt("scores.csv", rows, "%s", delimiter=",", header="id,prob_cat,prob_dog,prob_eel", comments="")

inputs, labels = examples(300)
np.savez("test.npz", inputs=inputs, labels=labels, class_names=names)
