import jax
import jax.numpy as jnp

import mtbkd_jax as mt

inputs = jax.random.normal(jax.random.key(0), (200, 2))
truth = (inputs > 0).astype(int)  # two labels: each applies, or does not
labels = truth.at[50:].set(-1)  # nobody knows those of 150 examples
one, other = 4 * inputs, -4 * inputs
teachers = jnp.stack([one.at[:, 1].set(other[:, 1]), one.at[:, 0].set(other[:, 0])], axis=1)

config = mt.DistillationConfig(
    settings=mt.GivenSettings(1.0, 2.0, float("inf"), 1.0, 1.0, 1.0),
    sampling=mt.SamplingConfig(num_chains=2, num_burn_in=500, num_draws=50, thinning=10),
)
student = mt.mlp(num_features=2, hidden=(8,), num_classes=2)
result = mt.distil_multilabel(inputs, labels, teachers, student, seed=0, config=config)

asked = result.questions.lessons.examples.inputs[:, 2:].argmax(1)
trust = jnp.exp(result.questions.lessons.log_weights)
for label in range(2):
    nobody, first, second = trust[asked == label].mean(0).tolist()
    print(f"label {label}: nobody {nobody:.2f}, first teacher {first:.2f}, second teacher {second:.2f}")
probs = mt.predict_multilabel(result, inputs).probs
print(f"answers that are right: {((probs > 0.5) == truth).mean():.3f}")
