import numpy as np

import mtbkd_jax as mt

# 20 labels, 400 examples without, and 2,000 new ones; the class is the sign of a product.
rng = np.random.default_rng(0)
x = rng.normal(size=(2420, 4)).astype(np.float32)
truth = (x[:, 0] * x[:, 1] > 0).astype(int)
pool, new = slice(0, 420), slice(420, None)
labels = np.where(np.arange(420) < 20, truth[pool], -1)
logits = (2 * np.eye(2)[truth[pool]] - 1 + rng.normal(size=(420, 2))).astype(np.float32)[:, None]

student = mt.mlp(num_features=4, hidden=(8,), num_classes=2)
infinite = float("inf")


def log_loss(rows, power):
    settings = mt.GivenSettings(power, 2, infinite, 1, 1, 1)  # no centers, temperatures of one
    sampling = mt.SamplingConfig(num_mode_steps=300, num_burn_in=500, num_draws=50, thinning=20, batch_size=20)
    config = mt.DistillationConfig(settings=settings, sampling=sampling)
    rule = mt.uniform_weighting()  # there is one teacher
    result = mt.distil(x[rows], labels[rows], logits[rows], student, seed=0, weighting=rule, config=config)
    probs = result.predict(x[new]).probs
    return -np.log(probs[np.arange(2000), truth[new]]).mean()


labelled, everything = np.arange(20), np.arange(420)
print(f"20 labels, no teacher:                          {log_loss(labelled, 0.0):.3f} nats")
print(f"20 labels, and what the teacher says of them:   {log_loss(labelled, 1.0):.3f} nats")
print(f"20 labels, and what it says of all 420:         {log_loss(everything, 1.0):.3f} nats")
