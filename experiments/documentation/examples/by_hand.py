import numpy as np

import mtbkd_jax as mt

# Logits of two teachers, for inputs that have ids; classes in the order of the columns.
data = np.load("train.npz")
logits = {name: np.load(f"{name}.npz")["logits"] for name in ("west", "east")}
outputs = mt.write_teacher_outputs("outputs/both", logits, ids=data["ids"], class_names=["cat", "dog", "eel"])
print(outputs.names, outputs.num_examples, outputs.class_names)

# They are found by id, whatever the order: here those of the last three examples.
aligned = mt.align_teachers([mt.open_teacher_outputs("outputs/both")], ids=data["ids"][-3:])
print(aligned.logits.shape, "[examples, teachers, classes]")
