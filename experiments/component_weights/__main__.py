"""Are the estimated probabilities of the components, ω_k, right, and are their standard errors honest?

Run as ``python -m experiments.component_weights``.

100 random linear-Gaussian students (``problems``), in which every ω_k is known: half have near components, whose
posteriors overlap, and half have far ones. Each component's posterior is sampled by two chains of NUTS that start at
its center. Its evidence is estimated in three ways, with the library's defaults:

- by the bridge between the chains;
- by tempering;
- by Laplace, at the mode, which is given here.

The rule of the library takes the bridge where the chains overlap enough for it, and tempering elsewhere. The mean and
the covariance of the weighted draws are compared with the closed form as well.

Writes ``results.json``, ``table.md`` and ``component_weights.png`` to the folder of this file or to ``--out``, and
replaces such files only where ``--overwrite`` is given.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy.special import logit
from scipy.stats import norm

from experiments.component_weights.problems import DIMENSIONS, NOISE, NUM_PROBLEMS, Problem, random_problem
from experiments.study import results_files, study_parser, write_results
from mtbkd_jax.component_evidence import component_log_densities
from mtbkd_jax.evidence import (
    ComponentWeights,
    Evidence,
    bridge_evidence,
    component_weights,
    evidence_of_populations,
    laplace_evidence,
    tempered_evidence,
)
from mtbkd_jax.figures import BLUE, GREY, STYLE, VERMILLION, WIDTH, save_figure
from mtbkd_jax.samplers import nuts, warm_up
from mtbkd_jax.sampling import sample_chains, start_chains
from mtbkd_jax.schedules import constant
from mtbkd_jax.settings import Component
from mtbkd_jax.tree import tree_rows
from mtbkd_jax.types import Key, Scalar

CHAINS_OF_COMPONENT = 2
NUM_WARM_UP = 300
NUM_DRAWS = 1000
NUM_BATCHES = 10
"""Of a chain, whose means tell the Monte Carlo error."""

WITHIN = 3.0
"""Standard errors that every ω_k must be within."""

RULE, BRIDGE, TEMPERING, LAPLACE = "rule", "bridge", "tempering", "laplace"
MOMENTS = {"mean_scores": "mean", "covariance_scores": "covariance"}


class ChainData(NamedTuple):
    """What a chain samples: one component's posterior, of a problem of its own."""

    inputs: Any
    targets: Any
    component: Component


def main() -> None:
    """Sample and estimate everything, draw the figure, and write and print the table."""
    options = study_parser(str(__doc__), Path(__file__).parent).parse_args()
    files = results_files(options)
    figure_file = options.out / "component_weights.png"
    if options.overwrite:
        figure_file.unlink(missing_ok=True)

    start = time.perf_counter()
    problems = [random_problem(index) for index in range(NUM_PROBLEMS)]
    rows: dict[int, dict[str, Any]] = {}
    for number, num_parameters in enumerate(DIMENSIONS):
        chosen = [index for index in range(NUM_PROBLEMS) if problems[index].num_parameters == num_parameters]
        draws = sample([problems[index] for index in chosen], jax.random.fold_in(jax.random.key(0), number))
        print(f"{num_parameters} parameters: sampled after {time.perf_counter() - start:.0f} s", flush=True)
        for index, of_problem in zip(chosen, draws, strict=True):
            rows[index] = result_of(problems[index], of_problem, jax.random.fold_in(jax.random.key(1), index))
        print(f"{num_parameters} parameters: estimated after {time.perf_counter() - start:.0f} s", flush=True)
    results = [rows[index] for index in range(NUM_PROBLEMS)]
    seconds = time.perf_counter() - start
    save_figure(draw(results), figure_file)
    # Thirty thousand scores of moments: the table sums them up.
    kept = [{name: value for name, value in row.items() if name not in MOMENTS} for row in results]
    write_results(files, {"seconds": seconds, "problems": kept}, table_of(results, seconds))


def log_likelihood(params: jax.Array, data: ChainData) -> Scalar:
    """In nats."""
    return -0.5 * jnp.sum(jnp.square((data.targets - data.inputs @ params) / NOISE))


def log_density(params: jax.Array, data: ChainData) -> Scalar:
    """Of one component's posterior, in nats."""
    offset = (params - data.component.center) / data.component.scale
    return log_likelihood(params, data) - 0.5 * jnp.vdot(offset, offset)


SAMPLER = nuts(log_density)


def own_batch(key: Key, data: tuple[None, ChainData]) -> ChainData:
    """A chain has all of its data to itself."""
    del key
    return data[1]


def chain_data(problem: Problem) -> ChainData:
    """Stacked over components."""
    inputs, targets = (
        np.broadcast_to(array, (problem.num_components, *array.shape)) for array in (problem.inputs, problem.targets)
    )
    component = Component(jnp.float32(problem.centers), jnp.float32(problem.scales))
    return ChainData(jnp.float32(inputs), jnp.float32(targets), component)


def sample(problems: list[Problem], key: Key) -> list[np.ndarray]:
    """Draws ``[components × chains, draws, parameters]`` of each problem; all have the same number of parameters.

    The chains of all problems are run by one program, which is compiled once.
    """
    start_key, warm_up_key, sampling_key = jax.random.split(key, 3)
    of_components = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *map(chain_data, problems))
    own = jax.tree.map(lambda leaf: jnp.repeat(leaf, CHAINS_OF_COMPONENT, axis=0), of_components)
    states = start_chains(SAMPLER, own.component.center, start_key)
    arguments = {"data": None, "own_data": own, "draw_batch": own_batch}
    states, step_sizes = warm_up(SAMPLER, states, key=warm_up_key, num_steps=NUM_WARM_UP, **arguments)
    schedule = constant(step_sizes)
    run = sample_chains(
        SAMPLER, states, key=sampling_key, step_size=schedule, num_draws=NUM_DRAWS, chunk_size=NUM_DRAWS, **arguments
    )
    assert (run.failed_at < 0).all()
    ends = np.cumsum([CHAINS_OF_COMPONENT * problem.num_components for problem in problems])
    return np.split(np.asarray(run.positions), ends[:-1])


def result_of(problem: Problem, draws: np.ndarray, key: Key) -> dict[str, Any]:
    """Exact and estimated probabilities, and the errors of the posterior's mean and covariance."""
    laplace_key, tempering_key = jax.random.split(key)
    data = chain_data(problem)
    log_densities = np.asarray(component_log_densities(draws, data.component))
    bridge = bridge_evidence(log_densities, np.repeat(np.arange(problem.num_components), CHAINS_OF_COMPONENT))
    evidence = {
        BRIDGE: bridge.evidence,
        TEMPERING: _evidence_by_tempering(tempering_key, data),
        LAPLACE: _evidence_by_laplace(laplace_key, problem, data),
    }
    method = BRIDGE if bridge.is_trustworthy else TEMPERING
    weights = {name: component_weights(problem.log_prior_weights, found) for name, found in evidence.items()}
    mean_scores, covariance_scores = moment_scores(problem, draws, weights[method], evidence[method])
    return {
        "num_parameters": problem.num_parameters,
        "num_components": problem.num_components,
        "is_near": problem.is_near,
        "overlap": bridge.overlap,
        "method": method,
        "exact": problem.weights.tolist(),
        "estimates": {name: found.weights.tolist() for name, found in weights.items()},
        "standard_errors": {name: found.standard_errors.tolist() for name, found in weights.items()},
        "mean_scores": mean_scores.tolist(),
        "covariance_scores": covariance_scores.tolist(),
    }


def _evidence_by_tempering(key: Key, data: ChainData) -> Evidence:
    populations = []
    for index, center in enumerate(data.component.center):
        of_component = tree_rows(data, index)
        populations.append(
            tempered_evidence(
                jax.random.fold_in(key, index), log_likelihood, of_component, center, of_component.component.scale
            )
        )
    return evidence_of_populations(np.stack(populations))


@jax.jit
def _laplace(key: Key, data: ChainData, mode: jax.Array) -> Any:
    return laplace_evidence(key, log_likelihood, data, mode, data.component.center, data.component.scale)


def _evidence_by_laplace(key: Key, problem: Problem, data: ChainData) -> Evidence:
    """As the first look of ``posterior_sampling``: the same probes for all components."""
    found = [_laplace(key, tree_rows(data, index), jnp.float32(mode)) for index, mode in enumerate(problem.means)]
    errors = np.array([laplace.standard_error for laplace in found])
    return Evidence(np.array([laplace.log_evidence for laplace in found]), np.diag(np.square(errors)), LAPLACE)


def moment_scores(
    problem: Problem, draws: np.ndarray, weights: ComponentWeights, evidence: Evidence
) -> tuple[np.ndarray, np.ndarray]:
    """Error over Monte Carlo error, of every mean, and of every entry of the covariance on and above its diagonal.

    The mean of a function f is estimated by Σ_k ω_k f_k, where f_k is its mean over the draws of component k. So its
    variance is that of the f_k, by the means of batches of consecutive draws, and that of the ω_k by the delta method.
    For an entry of the covariance f is the product of two offsets from the estimated mean, whose own error is of second
    order there.
    """
    of_components = draws.reshape(problem.num_components, -1, NUM_DRAWS // NUM_BATCHES, problem.num_parameters)
    jacobian = np.diag(weights.weights) - np.outer(weights.weights, weights.weights)
    of_weights = jacobian @ evidence.covariance @ jacobian.T

    def estimate(of_batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means = of_batches.mean(1)
        of_draws = np.einsum("k,kf->f", np.square(weights.weights), of_batches.var(1, ddof=1) / of_batches.shape[1])
        return weights.weights @ means, np.sqrt(of_draws + np.einsum("kf,kl,lf->f", means, of_weights, means))

    mean, error_of_mean = estimate(of_components.mean(2, dtype=np.float64))
    offsets = of_components - mean
    products = np.einsum("kbni,kbnj->kbij", offsets, offsets) / offsets.shape[2]
    entries = np.triu_indices(problem.num_parameters)
    covariance, error_of_covariance = estimate(products[:, :, *entries])
    return (mean - problem.mean) / error_of_mean, (covariance - problem.covariance[entries]) / error_of_covariance


def scores_of(row: dict[str, Any], method: str) -> np.ndarray:
    """(estimate − exact) / standard error of every component; of two components, which sum to one, the first alone."""
    method = row["method"] if method == RULE else method
    errors = np.array(row["estimates"][method]) - np.array(row["exact"])
    scores = errors / np.array(row["standard_errors"][method])
    return scores[:1] if scores.size == 2 else scores


def table_of(results: list[dict[str, Any]], seconds: float) -> str:
    """How many problems have every ω_k within three standard errors, by method, and the moments' errors."""
    near, far = ([row for row in results if row["is_near"] == is_near] for is_near in (True, False))
    taken = {name: [row for row in results if row["method"] == name] for name in (BRIDGE, TEMPERING)}
    lines = [
        "| ω_k | problems | all within 3 se | rms of z | largest \\|z\\| | \\|z\\| > 2 | median se | largest error |",
        "|---|---|---|---|---|---|---|---|",
        _row_of_weights("the library's rule", results, RULE),
        _row_of_weights("of these, by the bridge", taken[BRIDGE], BRIDGE),
        _row_of_weights("of these, by tempering", taken[TEMPERING], TEMPERING),
        _row_of_weights("tempering, near components", near, TEMPERING),
        _row_of_weights("tempering, far components", far, TEMPERING),
        _row_of_weights("Laplace at the exact mode", results, LAPLACE),
        "",
        "| posterior | entries | rms of z | \\|z\\| > 3 | largest \\|z\\| |",
        "|---|---|---|---|---|",
    ]
    for name, title in MOMENTS.items():
        for rows, kind in ((taken[BRIDGE], "bridge"), (taken[TEMPERING], "tempering")):
            # Every problem counts the same, however many parameters it has.
            rms = np.sqrt(np.mean([np.mean(np.square(row[name])) for row in rows]))
            beyond = np.mean([np.mean(np.abs(row[name]) > WITHIN) for row in rows])
            largest = max(np.abs(row[name]).max() for row in rows)
            count = sum(len(row[name]) for row in rows)
            lines.append(f"| {title}, {kind} | {count:,} | {rms:.2f} | {beyond:.2%} | {largest:.1f} |")
    overlaps = [row["overlap"] for row in taken[BRIDGE]]
    lines += [
        "",
        f"The rule took the bridge in {len(taken[BRIDGE])} problems ({sum(r['is_near'] for r in taken[BRIDGE])} of "
        f"{len(near)} with near components), at overlaps of {min(overlaps):.3f} to {max(overlaps):.3f}, and tempering "
        f"in {len(taken[TEMPERING])}. {seconds:.0f} seconds in all.",
    ]
    return "\n".join(lines) + "\n"


def _row_of_weights(title: str, rows: list[dict[str, Any]], method: str) -> str:
    per_problem = [np.abs(scores_of(row, method)) for row in rows]
    scores = np.concatenate(per_problem)
    within = sum(bool((scores <= WITHIN).all()) for scores in per_problem)
    of_row = [row["method"] if method == RULE else method for row in rows]
    errors = np.concatenate([row["standard_errors"][name] for row, name in zip(rows, of_row, strict=True)])
    largest = max(
        np.abs(np.array(row["estimates"][name]) - row["exact"]).max() for row, name in zip(rows, of_row, strict=True)
    )
    return (
        f"| {title} | {len(rows)} | {within} | {np.sqrt(np.mean(scores**2)):.2f} | {scores.max():.1f} "
        f"| {np.mean(scores > 2):.1%} | {np.median(errors):.4f} | {largest:.3f} |"
    )


def draw(results: list[dict[str, Any]]) -> Figure:
    """Estimated against exact ω on the left, and quantiles of the z-scores against those of N(0, 1) on the right."""
    styles = {BRIDGE: (BLUE, "o"), TEMPERING: (VERMILLION, "s")}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), dpi=100, layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        low, high = -9.0, 8.0
        left.plot([low, high], [low, high], color=GREY, linewidth=1)
        limits = norm.ppf([0.002, 0.998])
        right.plot(limits, limits, color=GREY, linewidth=1)
        for method, (colour, marker) in styles.items():
            rows = [row for row in results if row["method"] == method]
            exact = np.concatenate([row["exact"] for row in rows])
            estimates = np.concatenate([row["estimates"][method] for row in rows])
            errors = np.concatenate([row["standard_errors"][method] for row in rows])
            # In log odds ω counts by 1 / (ω (1 − ω)).
            left.errorbar(
                logit(exact),
                logit(estimates),
                2 * errors / (estimates * (1 - estimates)),
                color=colour,
                marker=marker,
                markersize=3,
                linestyle="",
                elinewidth=0.8,
                label=f"{method} ({len(rows)} problems)",
            )
            scores = np.sort(np.concatenate([scores_of(row, method) for row in rows]))
            quantiles = norm.ppf((np.arange(scores.size) + 0.5) / scores.size)
            right.plot(quantiles, scores, color=colour, marker=marker, markersize=3, linestyle="")
        for level in (-WITHIN, WITHIN):
            right.axhline(level, color=GREY, linestyle=":", linewidth=1)
        left.set(xlabel="exact log odds of ω", ylabel="estimated log odds (bars: 2 se)", title="Every component")
        right.set(xlabel="quantile of N(0, 1)", ylabel="(estimate − exact) / se", title="Errors over standard errors")
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


if __name__ == "__main__":
    main()
