import jax
import jax.numpy as jnp
import numpy as np

import mtbkd_jax as mt

# The first teacher knows where x is negative, the second where it is positive; both are sure everywhere.
x = jax.random.normal(jax.random.key(0), (200, 2))
truth = (x[:, 1] > 0).astype(jnp.int32)
says_class_1 = jnp.stack([jnp.where(x[:, 0] < 0, truth, 1), jnp.where(x[:, 0] > 0, truth, 0)], axis=1)
probs = jnp.where(says_class_1[..., None] == jnp.arange(2), 0.98, 0.02)
labels = truth.at[60:].set(-1)

is_left = np.asarray(x[:, 0] < 0)
rules = {
    "learned trust": mt.learned_trust(),
    "accuracy by class": mt.accuracy_by_class_weighting(),
    "entropy": mt.entropy_weighting(),
}
print("weight of the first teacher, where it knows and elsewhere:")
for name, rule in rules.items():
    weights = np.exp(rule(jax.random.key(1), probs, x, labels))[:, 1]
    print(f"{name}: {weights[is_left].mean():.2f}, {weights[~is_left].mean():.2f}")
