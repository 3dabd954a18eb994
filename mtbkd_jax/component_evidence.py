"""The evidence of the components of the weight-space prior, for ``posterior_sampling``: a first look, and a second.

The first look is by Laplace at every component's mode. Where chains sampled more than one component, their evidence is
found from these chains where they overlap, and by tempering where they do not.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from mtbkd_jax.chains import chain_mesh, copy_to_all, copy_to_chains, over_chains
from mtbkd_jax.draws import DrawStore, blocks_of_draws
from mtbkd_jax.errors import InputError
from mtbkd_jax.evidence import (
    NUM_BLOCKS,
    NUM_POPULATIONS,
    ComponentWeights,
    Curvature,
    Evidence,
    bridge_evidence,
    component_weights,
    evidence_of_populations,
    laplace_evidence,
    tempered_evidence,
)
from mtbkd_jax.examples import Examples, full_batch
from mtbkd_jax.kept_predictions import KeptPredictions
from mtbkd_jax.settings import Component, mixture_of
from mtbkd_jax.tree import tree_rows, tree_size
from mtbkd_jax.types import Key, MinibatchLogDensity, Params

WORTH_SAMPLING = 1e-3
"""Components of less posterior probability, by Laplace, are left out."""

MOST_PARAMETERS_TEMPERED = 1000
"""Parameters of the largest student whose evidence is found by tempering: minutes of two cores for each component."""


def worth_sampling(
    weights: Float[np.ndarray, " components"], num_chains: int, least: float = WORTH_SAMPLING
) -> Int[np.ndarray, " sampled"]:
    """The components to sample, most probable first: no more than there are chains, and none of less than ``least``."""
    by_weight = np.argsort(-weights)[:num_chains]
    return by_weight[weights[by_weight] >= least]


def evidence_by_laplace(
    key: Key,
    likelihood: MinibatchLogDensity,
    curvature: Curvature,
    examples: Examples,
    modes: Params,
    components: Component,
) -> tuple[Evidence, Bool[np.ndarray, " components"]]:
    """The first look, and whose curvature was damped.

    Its errors count as independent, although the probes are the same for all and their noise cancels in part.
    """

    def look(chain, examples):
        mode, component = chain
        batch = full_batch(key, examples)
        return laplace_evidence(key, likelihood, batch, mode, component.center, component.scale, curvature=curvature)

    mesh = chain_mesh(components.scale.shape[0])
    found = jax.jit(over_chains(look, mesh))(copy_to_chains((modes, components), mesh), copy_to_all(examples, mesh))
    # A mode that was not found has no evidence.
    log_evidence = np.nan_to_num(np.asarray(found.log_evidence, np.float64), nan=-np.inf)
    if np.isneginf(log_evidence).all():
        found_instead, expected = "none that is finite, for any component", "a finite one"
        action = "Check the inputs and teachers for extreme numbers, or widen the scales."
        raise InputError("sample_posterior", "evidence", found_instead, expected, action)
    errors = np.nan_to_num(np.asarray(found.standard_error))
    return Evidence(log_evidence, np.diag(errors**2), "laplace"), np.asarray(found.is_damped)


def refined_evidence(
    key: Key,
    likelihood: MinibatchLogDensity,
    examples: Examples,
    draws: Params | DrawStore | KeptPredictions,
    components: Component,
    component_of_chain: Int[np.ndarray, " chains"],
) -> Evidence | None:
    """Evidence of the components that were sampled: from their chains, by tempering, or None where neither will do."""
    numbers, index_of_chain = np.unique(component_of_chain, return_inverse=True)
    sampled = tree_rows(components, numbers)
    if not isinstance(draws, KeptPredictions):
        blocks = [np.asarray(component_log_densities(block, sampled)) for block in blocks_of_draws(draws)]
        log_densities = np.concatenate(blocks, axis=1)
        if log_densities.shape[1] >= NUM_BLOCKS:
            bridge = bridge_evidence(log_densities, index_of_chain)
            if bridge.is_trustworthy:
                return bridge.evidence
    if tree_size(tree_rows(sampled.center, 0)) > MOST_PARAMETERS_TEMPERED:
        return None

    def lead(population, batch):
        key, component = population
        return tempered_evidence(key, likelihood, batch, *component, num_populations=1)[0]

    populations = tree_rows(sampled, np.repeat(np.arange(numbers.size), NUM_POPULATIONS))
    keys = jax.random.split(key, numbers.size * NUM_POPULATIONS)
    mesh = chain_mesh(keys.size)
    shared = copy_to_all(full_batch(key, examples), mesh)
    log_evidence = jax.jit(over_chains(lead, mesh))(copy_to_chains((keys, populations), mesh), shared)
    return evidence_of_populations(np.asarray(log_evidence).reshape(numbers.size, NUM_POPULATIONS))


def with_refined(
    first_look: ComponentWeights,
    log_prior_weights: Float[np.ndarray, " components"],
    evidence: Evidence,
    sampled: Int[np.ndarray, " sampled"],
) -> ComponentWeights:
    """The weights of the components that were sampled, refined; the others keep what Laplace gave them."""
    refined = component_weights(log_prior_weights[sampled], evidence)
    weights, standard_errors = first_look.weights.copy(), first_look.standard_errors.copy()
    share = weights[sampled].sum()
    weights[sampled], standard_errors[sampled] = share * refined.weights, share * refined.standard_errors
    return ComponentWeights(weights, standard_errors, refined.method)


@jax.jit
def component_log_densities(positions: Params, components: Component) -> Float[Array, "chains draws components"]:
    """log Normal(θ; center_k, scale_k²) of every draw, up to the constant that all components share, in nats."""
    num_components = components.scale.shape[0]
    mixture = mixture_of(components, jnp.full(num_components, -jnp.log(num_components)))

    def of_draw(params: Params) -> Float[Array, " components"]:
        return mixture.component_log_densities(ravel_pytree(params)[0])

    return jax.lax.map(lambda chain: jax.lax.map(of_draw, chain), positions)
