"""A step of SGLD and SGHMC beside the same in PyTorch: the paper's algorithm, and the library ``posteriors``.

The student 256-128-10 with two teachers on cached features, minibatches of 64 of 2,000 examples, both priors, float32,
two threads each. The paper's algorithm is an eager loop, as its authors' script is, written with care: teachers'
normalisers computed once, one backward pass a step, noise added in place. ``posteriors`` takes the gradient of the same
log posterior by ``torch.func``. Ours are chains of the library, scanned and compiled.

PyTorch and ``posteriors`` come with ``pip install 'mtbkd-jax[benchmarks]'``.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import posteriors
import torch

from benchmarks.measure import Row, microseconds, row_of_ratio, take_turns
from benchmarks.problems import BATCH_SIZE, CENTER_SCALE, Problem, problem
from benchmarks.step import HAMILTONIAN, LANGEVIN, STEP_SIZE, walks
from mtbkd_jax.examples import WeightedExamples
from mtbkd_jax.tree import tree_rows

FRICTION = 1.0
LEAST_OF_LOOP, LEAST_OF_POSTERIORS = 10.0, 5.0
REST_SECONDS = 0.5
"""PyTorch's threads keep a core busy for a while after their work, in which our step takes up to twice its time."""


def measure(*, is_small: bool) -> list[Row]:
    """Two figures; a small measurement takes fewer turns and steps."""
    repetitions, num_steps = (2, 20) if is_small else (9, 500)
    of = problem()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    density = TorchPosterior(of)
    check_same_posterior(of, density)
    ours = walks(of, 1, num_steps, [LANGEVIN, HAMILTONIAN])
    rows = []
    for name, theirs, program, goal in (
        ("The paper's SGLD in PyTorch", LANGEVIN, partial(sgld_loop, density, num_steps), LEAST_OF_LOOP),
        ("SGHMC of posteriors", HAMILTONIAN, partial(posteriors_loop, density, num_steps), LEAST_OF_POSTERIORS),
    ):
        seconds = take_turns({"ours": ours[theirs], "theirs": program}, repetitions, rest_seconds=REST_SECONDS)
        rows.append(
            row_of_ratio(
                f"{name}, one chain, in steps of ours",
                seconds["theirs"],
                seconds["ours"],
                goal=goal,
                better="higher",
                microseconds=microseconds(seconds["theirs"], num_steps),
                microseconds_of_ours=microseconds(seconds["ours"], num_steps),
            )
        )
    return rows


class TorchPosterior:
    """The same data and log posterior in PyTorch; parameters are a dictionary of tensors."""

    def __init__(self, of: Problem):
        params = of.student.init(jax.random.key(0))
        self.params = _tensors(params)
        examples = of.examples
        self.inputs, self.labels = _tensor(examples.inputs), _tensor(examples.labels).long()
        self.pseudo_counts, self.log_offsets = (_tensor(values) for values in examples.components[:2])
        self.num_examples = len(self.labels)
        self.centers = [_tensors(center) for center in of.centers]

    def __call__(self, params: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.inputs[rows] @ params["kernel_1"] + params["bias_1"])
        log_probs = torch.log_softmax(hidden @ params["kernel_2"] + params["bias_2"], dim=1)
        likelihood = log_probs.gather(1, self.labels[rows, None])[:, 0]
        components = self.log_offsets[rows] + torch.einsum("egc,ec->eg", self.pseudo_counts[rows], log_probs)
        per_example = likelihood + torch.logsumexp(components, dim=1)
        squares = torch.stack(
            [sum((params[name] - center[name]).square().sum() for name in params) for center in self.centers]
        )
        # Components of equal weight and scale: what they share is a constant.
        prior = torch.logsumexp(-squares / (2 * CENTER_SCALE**2), dim=0)
        return self.num_examples / len(rows) * per_example.sum() + prior


def check_same_posterior(of: Problem, density: TorchPosterior) -> None:
    """Stop where the two posteriors are not the same: their difference between two points must agree."""
    points = [of.student.init(jax.random.key(seed)) for seed in (1, 2)]
    rows = np.arange(BATCH_SIZE)
    weights = jnp.full(BATCH_SIZE, density.num_examples / BATCH_SIZE)
    batch = WeightedExamples(tree_rows(of.examples, rows), weights)
    differences = [
        [float(of.log_density(point, batch)) for point in points],
        [float(density(_tensors(point), torch.from_numpy(rows))) for point in points],
    ]
    np.testing.assert_allclose(*np.diff(differences, axis=1), rtol=1e-3)


def sgld_loop(density: TorchPosterior, num_steps: int) -> None:
    """θ ← θ + ε ∇ log p̂(θ) + √(2ε) ξ."""
    params = {name: value.clone().requires_grad_() for name, value in density.params.items()}
    noise_scale = (2 * STEP_SIZE) ** 0.5
    for _ in range(num_steps):
        rows = torch.randint(density.num_examples, (BATCH_SIZE,))
        gradients = torch.autograd.grad(density(params, rows), list(params.values()))
        with torch.no_grad():
            for value, gradient in zip(params.values(), gradients, strict=True):
                value.add_(gradient, alpha=STEP_SIZE).add_(torch.randn_like(value), alpha=noise_scale)


def posteriors_loop(density: TorchPosterior, num_steps: int) -> None:
    """``posteriors.sgmcmc.sghmc`` as its guide runs it, updating in place."""

    def log_posterior(params: dict[str, torch.Tensor], rows: torch.Tensor) -> Any:
        return density(params, rows), torch.tensor([])

    transform = posteriors.sgmcmc.sghmc.build(log_posterior, lr=STEP_SIZE, alpha=FRICTION)
    state = transform.init({name: value.clone() for name, value in density.params.items()})
    for _ in range(num_steps):
        state, _ = transform.update(state, torch.randint(density.num_examples, (BATCH_SIZE,)))


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(values))


def _tensors(params: Any) -> dict[str, torch.Tensor]:
    """The student's parameters, by layer."""
    leaves = [_tensor(leaf) for leaf in jax.tree.leaves(params)]
    return dict(zip(("bias_1", "kernel_1", "bias_2", "kernel_2"), leaves, strict=True))
