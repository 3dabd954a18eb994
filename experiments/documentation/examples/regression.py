import jax.numpy as jnp
import numpy as np

import mtbkd_jax as mt

# Prices along a street: 150 houses, 30 with a price; one agency knows the south, the other the north.
rng = np.random.default_rng(0)
x = rng.uniform(-1.7, 1.7, (150, 1)).astype(np.float32)
price = 300 + 60 * np.abs(x[:, 0])
targets = np.where(np.arange(150) < 30, price + rng.normal(0, 5, 150), np.nan)
is_north = x[:, :1] > 0
agencies = price[:, None] + np.where(np.concatenate([is_north, ~is_north], axis=1), 80, rng.normal(0, 5, (150, 2)))

# Two candidates and short chains, for this page; without ``config`` there are 18, and 200 draws of each chain.
short = mt.ChainPlan(num_mode_steps=300, num_warm_up=40, num_draws=50, thinning=1, num_leapfrog_steps=10)
config = mt.RegressionConfig(powers=(0.0, 1.0), weight_scales=(1.0,), num_chains=2, candidate_plan=short, plan=short)
student = mt.mlp(num_features=1, hidden=(8,), num_classes=1)
result = mt.distil_regression(x, targets, agencies, student, seed=0, config=config)

for candidate in result.candidates:
    print(f"power {candidate.power}: held-out NLL {candidate.nll:.3f}")
weights = jnp.exp(result.examples.components.log_weights)
for side, rows in {"south": ~is_north[:, 0], "north": is_north[:, 0]}.items():
    print(f"trust in the {side} in nobody, first, second agency:", *(f"{one:.2f}" for one in weights[rows].mean(0)))

new = np.array([[-1.0], [0.0], [1.0]], np.float32)
prediction = result.predict(new)
low, high = mt.central_interval(prediction, level=0.9)
for row in range(3):
    mean = prediction.means[:, row].mean()
    print(f"x = {new[row, 0]:+.0f}: mean {mean:.0f}, 90 % from {low[row]:.0f} to {high[row]:.0f}")
