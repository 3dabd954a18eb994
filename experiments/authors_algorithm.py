"""The authors' algorithm at their settings: the baseline that their own student is measured by.

A student with one hidden layer of 128 ReLU units on frozen features is trained by Adam on

    mean_i [ −log q_i[y_i] − power · log TIP_i ],      power = 0.02

and then moved by SGLD from where Adam stopped, ε = 8e-8, with N times the gradient of that mean over a minibatch:

    θ ← θ − ε N ∇ loss(θ) + √(2ε) ξ,                    ξ ~ N(0, I)

    TIP_i = Σ_g w_i^g Dir(q_i; 1 + λ p_i^g),            λ = 5, q and p softened by τ = 2
    w_i^g ∝ 1 − H(p_i^g) / Σ_g H(p_i^g),                 p not softened                       (equation 10)

Source: arXiv 2605.27967, equations 7 to 10, with the settings of the script that the authors publish. The mixture is
evaluated in log space, where their script exponentiates; everything else, PyTorch's default initialisation and its
weight decay inside Adam's moments included, is as they have it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float

from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key, Params

HIDDEN_UNITS = 128
CONCENTRATION = 5.0
TEMPERATURE = 2.0
POWER = 0.02
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 1e-5
BATCH_SIZE = 64
SGLD_STEP_SIZE = 8e-8
SHARE_HELD_OUT = 0.2
THINNING = 5


def authors_algorithm(
    inputs: ArrayLike,
    labels: ArrayLike,
    teacher_logits: ArrayLike,
    test_inputs: ArrayLike,
    *,
    seed: int,
    adam_epochs: int = 120,
    sgld_epochs: int = 80,
) -> Float[Array, "draws tests classes"]:
    """Train, sample, and return the log class probabilities of the kept draws at the test inputs.

    A fifth of the examples is held out, as the authors do, and used for nothing. Inputs are standardised by the
    statistics of the others.

    Args:
      inputs: ``[N, F]``.
      labels: ``[N]``, none missing.
      teacher_logits: ``[N, G, C]``.
      test_inputs: ``[M, F]``.
      seed: of the split, the initialisation, the minibatches and the noise.
      adam_epochs: passes over the data by Adam.
      sgld_epochs: passes by SGLD; one step in five is kept as a draw.

    Raises:
      InputError: if a label is missing: the authors' loss has no term for an unlabelled example.
    """
    inputs, labels, teacher_logits = jnp.asarray(inputs), jnp.asarray(labels), jnp.asarray(teacher_logits)
    if bool((labels < 0).any()):
        raise InputError(
            "authors_algorithm", "labels", "a missing label", "a label for each example", "Leave such examples out."
        )
    split_key, init_key, adam_key, sgld_key = jax.random.split(jax.random.key(seed), 4)
    used = jax.random.permutation(split_key, len(labels))[round(SHARE_HELD_OUT * len(labels)) :]
    inputs, labels, teacher_logits = inputs[used], labels[used], teacher_logits[used]
    mean, scale = inputs.mean(0, keepdims=True), inputs.std(0, keepdims=True)
    scale = jnp.where(scale > 0, scale, 1.0)

    data = ((inputs - mean) / scale, labels, *_dirichlet_mixture(teacher_logits))
    params = _initial_params(init_key, (inputs.shape[-1], HIDDEN_UNITS, teacher_logits.shape[-1]))
    params = _train(params, adam_key, data, adam_epochs)
    return _sample(params, sgld_key, data, (jnp.asarray(test_inputs) - mean) / scale, sgld_epochs)


def entropy_log_weights(teacher_logits: Float[Array, "*batch teachers classes"]) -> Float[Array, "*batch teachers"]:
    """Log weights ∝ 1 − H^g / Σ_g H^g (equation 10 with the authors' ξ); a single teacher has weight one."""
    log_probs = jax.nn.log_softmax(teacher_logits)
    entropies = -(jnp.exp(log_probs) * log_probs).sum(-1)
    total = entropies.sum(-1, keepdims=True)
    decreasing = 1.0 - entropies / jnp.where(total > 0, total, 1.0)
    single = teacher_logits.shape[-2] == 1
    return jnp.zeros_like(entropies) if single else jnp.log(decreasing / decreasing.sum(-1, keepdims=True))


def log_prior(
    logits: Float[Array, "*batch classes"],
    teacher_probs: Float[Array, "*batch teachers classes"],
    log_factors: Float[Array, "*batch teachers"],
) -> Float[Array, "*batch"]:
    """Log of the teacher-informed mixture (equation 7) at student logits; see ``_dirichlet_mixture``."""
    student_log_probs = jax.nn.log_softmax(logits / TEMPERATURE)
    agreement = (teacher_probs * student_log_probs[..., None, :]).sum(-1)
    return jax.nn.logsumexp(log_factors + CONCENTRATION * agreement, axis=-1)


def _dirichlet_mixture(teacher_logits):
    """What the prior needs of the teachers: softened probabilities, and log weight plus log normaliser of each."""
    probs = jax.nn.softmax(teacher_logits / TEMPERATURE)
    alpha = 1.0 + CONCENTRATION * probs
    log_normalizer = gammaln(alpha.sum(-1)) - gammaln(alpha).sum(-1)
    return probs, entropy_log_weights(teacher_logits) + log_normalizer


def _initial_params(key: Key, widths: tuple[int, ...]) -> Params:
    """PyTorch's default for a linear layer: kernel and bias uniform on ±1/√(number of inputs)."""
    layers = []
    for layer_key, num_in, num_out in zip(jax.random.split(key, len(widths) - 1), widths[:-1], widths[1:], strict=True):
        kernel_key, bias_key = jax.random.split(layer_key)
        bound = num_in**-0.5
        kernel = jax.random.uniform(kernel_key, (num_in, num_out), minval=-bound, maxval=bound)
        layers.append((kernel, jax.random.uniform(bias_key, (num_out,), minval=-bound, maxval=bound)))
    return layers


def _student_logits(params: Params, inputs):
    (kernel, bias), (last_kernel, last_bias) = params
    return jax.nn.relu(inputs @ kernel + bias[None]) @ last_kernel + last_bias[None]


def _loss(params: Params, batch, is_example):
    """Mean over the examples of a batch of −log likelihood − power · log prior, in nats."""
    inputs, labels, teacher_probs, log_factors = batch
    logits = _student_logits(params, inputs)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    per_example = cross_entropy - POWER * log_prior(logits, teacher_probs, log_factors)
    return jnp.where(is_example, per_example, 0.0).sum() / is_example.sum()


def _epoch_batches(key: Key, num_examples: int):
    """Row numbers of one shuffled pass, ``[batches, 64]``, and which of them are examples and not padding."""
    num_batches = -(-num_examples // BATCH_SIZE)
    padding = num_batches * BATCH_SIZE - num_examples
    index = jnp.pad(jax.random.permutation(key, num_examples), (0, padding))
    is_example = jnp.arange(num_batches * BATCH_SIZE) < num_examples
    return index.reshape(num_batches, BATCH_SIZE), is_example.reshape(num_batches, BATCH_SIZE)


@partial(jax.jit, static_argnames="num_epochs")
def _train(params: Params, key: Key, data, num_epochs: int) -> Params:
    optimizer = optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.adam(LEARNING_RATE))
    num_examples = len(data[1])

    def step(carry, batch):
        params, state = carry
        index, is_example = batch
        gradient = jax.grad(_loss)(params, jax.tree.map(lambda rows: rows[index], data), is_example)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, epoch_key):
        return jax.lax.scan(step, carry, _epoch_batches(epoch_key, num_examples))[0], None

    (params, _), _ = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, num_epochs))
    return params


def _sgld_step(key: Key, params: Params, data, index, is_example) -> Params:
    gradient = jax.grad(_loss)(params, jax.tree.map(lambda rows: rows[index], data), is_example)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.tree.unflatten(tree, list(jax.random.split(key, len(leaves))))

    def move(value, slope, leaf_key):
        noise = jax.random.normal(leaf_key, value.shape)
        return value - SGLD_STEP_SIZE * len(data[1]) * slope + jnp.sqrt(2.0 * SGLD_STEP_SIZE) * noise

    return jax.tree.map(move, params, gradient, keys)


@partial(jax.jit, static_argnames="num_epochs")
def _sample(params: Params, key: Key, data, test_inputs, num_epochs: int):
    num_examples = len(data[1])
    batch_key, noise_key = jax.random.split(key)
    index, is_example = jax.vmap(partial(_epoch_batches, num_examples=num_examples))(
        jax.random.split(batch_key, num_epochs)
    )
    num_draws = index.shape[0] * index.shape[1] // THINNING
    steps = jnp.arange(num_draws * THINNING)
    cut = (num_draws, THINNING)
    index = index.reshape(-1, BATCH_SIZE)[steps].reshape(*cut, BATCH_SIZE)
    is_example = is_example.reshape(-1, BATCH_SIZE)[steps].reshape(*cut, BATCH_SIZE)

    def step(params, step_batch):
        t, index, is_example = step_batch
        return _sgld_step(jax.random.fold_in(noise_key, t), params, data, index, is_example), None

    def draw(params, step_batches):
        params, _ = jax.lax.scan(step, params, step_batches)
        return params, jax.nn.log_softmax(_student_logits(params, test_inputs))

    _, log_probs = jax.lax.scan(draw, params, (steps.reshape(cut), index, is_example))
    return log_probs
