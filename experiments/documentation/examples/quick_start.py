import jax
import jax.numpy as jnp

import mtbkd_jax as mt

# 300 points of the plane in two classes: 40 with a label, 260 without.
x = jax.random.normal(jax.random.key(0), (300, 2))
labels = (x[:, 0] > 0).astype(int).at[40:].set(-1)

# One teacher knows the classes; the other is as sure of itself, and looks at the wrong axis.
knowing = jnp.stack([-3 * x[:, 0], 3 * x[:, 0]], axis=1)
wrong = jnp.stack([-3 * x[:, 1], 3 * x[:, 1]], axis=1)
teachers = jnp.stack([knowing, wrong], axis=1)  # logits, [examples, teachers, classes]

# Settings that are given are not chosen on the labels; chains are short. Both only for this page.
config = mt.DistillationConfig(
    settings=mt.GivenSettings(
        power=0.1, concentration=5, center_scale=0.5, wide_scale=1, temperature=1, prediction_temperature=1
    ),
    sampling=mt.SamplingConfig(num_mode_steps=300, num_burn_in=500, num_draws=50, thinning=20),
)
student = mt.mlp(num_features=2, hidden=(8,), num_classes=2)
result = mt.distil(x, labels, teachers, student, seed=0, config=config)

weights = jnp.exp(result.lessons.log_weights).mean(0)
for name, weight in zip(("nobody", "knowing", "wrong"), weights, strict=True):
    print(f"trust in {name}: {weight:.2f}")

new = jax.random.normal(jax.random.key(1), (1000, 2))
prediction = result.predict(new)
print(f"accuracy on new points: {(prediction.probs.argmax(1) == (new[:, 0] > 0)).mean():.3f}")
