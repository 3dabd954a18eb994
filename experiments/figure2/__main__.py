"""The paper's figure 2: does a sampled mixture posterior give every component its due?

Run as ``python -m experiments.figure2``.

A student of one weight, and everything is Gaussian:

    θ ~ ½ Normal(c₁, 1) + ½ Normal(c₂, 1),        one observation y ~ Normal(θ, 1)
    p(θ | y) = Σ_k ω_k Normal((c_k + y) / 2, ½),        ω_k ∝ ½ Normal(y; c_k, 2)

Two cases: the paper's centers 2 and 6 with y = 3.5, whose components overlap, and centers 2 and 26 with y = 13.9,
whose components are so far apart that no chain goes from one to the other. Each is sampled by NUTS in two ways: chains
of one component each, whose target is the likelihood times that component alone, and chains of the whole posterior,
half of which start at either center. The former are weighted by the exact ω_k, and also counted the same, as the latter
are.

Writes ``results.json``, ``table.md`` and ``figure2.png`` to the folder of this file or to ``--out``, and replaces such
files only where ``--overwrite`` is given.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax
from scipy.stats import norm

from experiments.study import markdown_table, results_files, study_parser, write_results
from mtbkd_jax.figures import BLUE, GREY, SKY, STYLE, VERMILLION, WIDTH, save_figure
from mtbkd_jax.samplers import nuts, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.types import Key
from mtbkd_jax.weight_prior import WeightMixture, weight_space_prior

PRIOR_WEIGHTS = np.array([0.5, 0.5])
CHAINS_OF_COMPONENT = 4
NUM_WARM_UP = 500
NUM_DRAWS = 2000
EXACT, WEIGHTED = "exact", "component chains, weighted by ω"
EQUAL, WHOLE = "component chains, each counted the same", "chains of the whole posterior"


class Case(NamedTuple):
    """Centers of the prior (scale 1), and the observation (noise of standard deviation 1)."""

    centers: np.ndarray
    observation: float

    @property
    def posterior_weights(self) -> np.ndarray:
        """ω_k."""
        return softmax(np.log(PRIOR_WEIGHTS) + norm.logpdf(self.observation, self.centers, np.sqrt(2.0)))

    @property
    def posterior_means(self) -> np.ndarray:
        """Of each component; their variance is ½."""
        return (self.centers + self.observation) / 2

    @property
    def boundary(self) -> float:
        """Halfway between the posterior components."""
        return float(self.posterior_means.mean())


CASES = {
    "near": Case(np.array([2.0, 6.0]), 3.5),
    "far": Case(np.array([2.0, 26.0]), 13.9),
}


def main() -> None:
    """Sample both cases, draw the figure, and write and print the table."""
    options = study_parser(str(__doc__), Path(__file__).parent).parse_args()
    files = results_files(options)
    figure_file = options.out / "figure2.png"
    if options.overwrite:
        figure_file.unlink(missing_ok=True)

    results, table, draws = {}, "", {}
    for index, (name, case) in enumerate(CASES.items()):
        draws[name] = of_components, of_whole = sample_case(case, jax.random.fold_in(jax.random.key(0), index))
        results[name] = results_of(case, of_components, of_whole)
        table += f"{title_of(case)}:\n\n{table_of(results[name])}\n"
    save_figure(draw(draws), figure_file)
    write_results(files, results, table)


def sample_case(case: Case, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Draws ``[2, chains, draws]`` of each component alone, and ``[chains, draws]`` of the whole posterior."""
    *component_keys, whole_key = jax.random.split(key, 3)
    of_components = [
        draws_of_posterior(np.array([center]), np.ones(1), case.observation, np.full(CHAINS_OF_COMPONENT, center), key)
        for center, key in zip(case.centers, component_keys, strict=True)
    ]
    starts = np.repeat(case.centers, CHAINS_OF_COMPONENT)
    of_whole = draws_of_posterior(case.centers, PRIOR_WEIGHTS, case.observation, starts, whole_key)
    return np.stack(of_components), of_whole


def draws_of_posterior(
    centers: np.ndarray, prior_weights: np.ndarray, observation: float, starts: np.ndarray, key: Key
) -> np.ndarray:
    """Chains from ``starts`` whose target is the likelihood times the mixture around ``centers``."""
    scales, log_weights = jnp.ones(len(centers)), jnp.log(jnp.asarray(prior_weights))
    prior = weight_space_prior(WeightMixture(jnp.asarray(centers)[:, None], scales, log_weights))

    def log_density(position, batch):
        return prior({"weight": position}) - 0.5 * jnp.sum(jnp.square(batch - position))

    start_key, warm_up_key, sampling_key = jax.random.split(key, 3)
    sampler = nuts(log_density)
    states = start_chains(sampler, jnp.asarray(starts)[:, None], start_key)
    arguments = {"data": jnp.array([observation]), "draw_batch": lambda key, data: data}
    states, step_sizes = warm_up(sampler, states, key=warm_up_key, num_steps=NUM_WARM_UP, **arguments)
    schedule = constant(step_sizes)
    run = sample_chains(sampler, states, key=sampling_key, step_size=schedule, num_draws=NUM_DRAWS, **arguments)
    return np.asarray(run.positions)[..., 0]


def results_of(case: Case, of_components: np.ndarray, of_whole: np.ndarray) -> dict[str, Any]:
    """Moments under each way of counting, and how often the chains of the whole posterior change sides."""
    omega, means = case.posterior_weights, case.posterior_means
    exact_mean = omega @ means
    exact = {
        "mean": exact_mean,
        "standard_deviation": np.sqrt(0.5 + omega @ (means - exact_mean) ** 2),
        "share_right": omega @ norm.sf(case.boundary, means, np.sqrt(0.5)),
    }
    per_component = of_components.reshape(len(means), -1)
    summaries = {
        EXACT: exact,
        WEIGHTED: _summary(case, per_component, omega),
        EQUAL: _summary(case, per_component, PRIOR_WEIGHTS),
        WHOLE: _summary(case, of_whole.reshape(1, -1), np.ones(1)),
    }
    is_right = of_whole > case.boundary
    return {
        "centers": case.centers.tolist(),
        "observation": case.observation,
        "posterior_weights": omega.tolist(),
        "changes_of_side_of_whole_chains": (is_right[:, 1:] != is_right[:, :-1]).sum(axis=1).tolist(),
        "summaries": {way: {name: float(value) for name, value in row.items()} for way, row in summaries.items()},
    }


def _summary(case: Case, draws: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Moments of ``draws [groups, draws]``, a group having the weight that it is given."""
    mean = weights @ draws.mean(axis=1)
    return {
        "mean": mean,
        "standard_deviation": np.sqrt(weights @ np.square(draws - mean).mean(axis=1)),
        "share_right": weights @ (draws > case.boundary).mean(axis=1),
    }


def table_of(result: dict[str, Any]) -> str:
    """A row for each way of counting."""
    titles = {"mean": "mean", "standard_deviation": "sd", "share_right": "share right of the middle"}
    return markdown_table(
        {
            way: {title: np.array([row[name]]) for name, title in titles.items()}
            for way, row in result["summaries"].items()
        }
    )


def title_of(case: Case) -> str:
    """What distinguishes a case."""
    left, right = case.centers
    return f"Prior centers {left:.0f} and {right:.0f}, observation {case.observation}"


def draw(draws: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """A row for each case: chains weighted by ω on the left, and counted the same on the right."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 6.6), dpi=100, layout="constrained")
        panels = figure.subplots(len(draws), 2, sharex="row", sharey="row")
        for row, (name, (of_components, of_whole)) in zip(panels, draws.items(), strict=True):
            case = CASES[name]
            low, high = case.centers.min() - 3.0, case.centers.max() + 3.0
            bins = np.linspace(low, high, round((high - low) / 0.2) + 1)
            for axes, weights in zip(row, (case.posterior_weights, PRIOR_WEIGHTS), strict=True):
                # A histogram of densities: each draw has its component's weight, shared out over the component's draws.
                shares = np.broadcast_to(weights[:, None, None] / of_components[0].size, of_components.shape)
                axes.hist(
                    of_components.ravel(),
                    bins,
                    weights=shares.ravel(),
                    density=True,
                    color=SKY,
                    alpha=0.6,
                    label="chains of one component each",
                )
                _draw_densities(axes, case, np.linspace(low, high, 1000))
                axes.set(xlim=(low, high), xlabel="weight θ")
            row[1].hist(
                of_whole.ravel(),
                bins,
                density=True,
                histtype="step",
                color="black",
                linewidth=1.2,
                label="chains of the whole posterior",
            )
            omega = case.posterior_weights
            left, right = case.centers
            row[0].set_ylabel(f"density\n(centers {left:.0f} and {right:.0f}, y = {case.observation})")
            row[0].set(title=f"Weighted by ω = {omega[0]:.2f}, {omega[1]:.2f}")
            row[1].set(title="Every chain counts the same")
        handles, labels = panels[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _draw_densities(axes: Axes, case: Case, grid: np.ndarray) -> None:
    def mixture(weights, means, scale):
        return norm.pdf(grid[:, None], means, scale) @ weights

    axes.plot(grid, mixture(PRIOR_WEIGHTS, case.centers, 1.0), color=GREY, linestyle="--", label="prior")
    axes.plot(grid, norm.pdf(grid, case.observation, 1.0), color=BLUE, linestyle=":", label="likelihood")
    exact = mixture(case.posterior_weights, case.posterior_means, np.sqrt(0.5))
    axes.plot(grid, exact, color=VERMILLION, label="exact posterior")


if __name__ == "__main__":
    main()
