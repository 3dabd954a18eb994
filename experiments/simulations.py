"""Simulations: data whose true class probabilities are known, and teachers that know only their own part of them.

A ``Design`` says how data are drawn and what each teacher is trained on; ``simulation_draws`` draws data and trains
the teachers of several draws together. A teacher is a small network with dropout, trained long on few examples:
outside its domain it is often wrong and just as certain, which is the case in which one has to learn whom to trust.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import entr

from mtbkd_jax.errors import InputError
from mtbkd_jax.types import Key, Params

_MAX_ATTEMPTS = 5
# A trained teacher lowers the NLL of its class frequencies by a quarter or more; one whose units died stays at 0.
_TRAINED_NLL_RATIO = 0.9


@dataclasses.dataclass(frozen=True)
class Training:
    """How a teacher is trained.

    Attributes:
      widths: of its hidden layers.
      num_classes: logits.
      num_examples: that it sees; a multiple of the batch size.
      num_epochs: passes over them. Few examples and many passes make a teacher more certain than it is right.
      batch_size: of Adam.
      learning_rate: of Adam at the start, with a cosine decay.
      dropout: share of hidden units that are left out.
    """

    widths: tuple[int, ...]
    num_classes: int
    num_examples: int
    num_epochs: int = 500
    batch_size: int = 64
    learning_rate: float = 1e-2
    dropout: float = 0.02


@dataclasses.dataclass(frozen=True)
class Design:
    """A simulation.

    Attributes:
      num_train: examples of the student.
      num_test: examples of the test.
      teacher_names: one for each teacher.
      training: of every teacher.
      draw_examples: ``(key, num_examples) -> (inputs, labels)``.
      draw_own_examples: ``(key, teacher, num_examples) -> (inputs, labels)`` of the teacher's domain; traced.
      class_probs: ``inputs [N, ...] -> [N, C]``, the true probabilities.
      domain_names: one for each domain.
      domain_of: ``(inputs [N, ...], labels [N]) -> [N]``, the domain that each example is from.
    """

    num_train: int
    num_test: int
    teacher_names: tuple[str, ...]
    training: Training
    draw_examples: Callable[[Key, int], tuple[jax.Array, jax.Array]]
    draw_own_examples: Callable[[Key, jax.Array, int], tuple[jax.Array, jax.Array]]
    class_probs: Callable[[jax.Array], jax.Array]
    domain_names: tuple[str, ...]
    domain_of: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """One draw of the data and of the teachers.

    Attributes:
      inputs: ``[num_train, features]``.
      labels: 0 to C − 1, or −1 where the label is withheld, ``[num_train]``.
      label_order: the order in which examples get their labels, ``[num_train]``.
      teacher_logits: ``[num_train, G, C]``, at temperature 1.
      test_inputs: ``[num_test, features]``.
      test_labels: ``[num_test]``.
      test_probs: true class probabilities of the test inputs, ``[num_test, C]``.
      test_domains: the domain that each test example is from, ``[num_test]``.
      test_teacher_logits: ``[num_test, G, C]``.
      test_nll_limit: NLL (nats) of the true probabilities on the test labels: what no method beats but by luck.
      teacher_attempts: how often each teacher was trained, ``[G]``.
      teacher_trained: False where a teacher does no better than the class frequencies of its domain, ``[G]``.
    """

    inputs: np.ndarray
    labels: np.ndarray
    label_order: np.ndarray
    teacher_logits: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray
    test_probs: np.ndarray
    test_domains: np.ndarray
    test_teacher_logits: np.ndarray
    test_nll_limit: float
    teacher_attempts: np.ndarray
    teacher_trained: np.ndarray

    def with_labels(self, num_labels: int) -> "Simulation":
        """The same draw with ``num_labels`` labels; with more of them the same ones are kept and others are added.

        Raises:
          InputError: if there are not so many.
        """
        if not 0 <= num_labels <= self.labels.size:
            action = "Give the number of labels."
            raise InputError("simulation", "num_labels", str(num_labels), f"0 to {self.labels.size}", action)
        kept = self.label_order[:num_labels]
        labels = np.full_like(self.labels, -1)
        labels[kept] = self.labels[kept]
        return dataclasses.replace(self, labels=labels)

    def with_inputs(self, num_inputs: int) -> "Simulation":
        """The same draw with fewer training inputs, those that get their labels first, in that order.

        Raises:
          InputError: if there are not so many.
        """
        if not 0 < num_inputs <= self.labels.size:
            action = "Give the number of inputs."
            raise InputError("simulation", "num_inputs", str(num_inputs), f"1 to {self.labels.size}", action)
        kept = self.label_order[:num_inputs]
        return dataclasses.replace(
            self,
            inputs=self.inputs[kept],
            labels=self.labels[kept],
            label_order=np.arange(num_inputs),
            teacher_logits=self.teacher_logits[kept],
        )


def simulation_draws(
    design: Design,
    seeds: Sequence[int],
    *,
    share_elsewhere: float = 0.0,
    retrain_failed: bool = True,
) -> list[Simulation]:
    """Draw data, with all their labels, and teachers for several seeds; all teachers of all draws are trained together.

    Args:
      design: what is drawn.
      seeds: one for each draw.
      share_elsewhere: share of a teacher's training data that comes from everywhere and not from its domain.
      retrain_failed: train a teacher that does no better than the class frequencies again from another seed, up to five
        times in all, as a user would.

    Raises:
      InputError: if ``share_elsewhere`` is out of range.
    """
    if not 0.0 <= share_elsewhere <= 1.0:
        raise InputError("simulation", "share_elsewhere", str(share_elsewhere), "0 to 1", "Give a share.")

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    keys = jax.vmap(lambda key: jax.random.split(key, 4))(keys)
    train = jax.vmap(lambda key: design.draw_examples(key, design.num_train))(keys[:, 0])
    test = jax.vmap(lambda key: design.draw_examples(key, design.num_test))(keys[:, 1])
    label_order = jax.vmap(lambda key: jax.random.permutation(key, design.num_train))(keys[:, 2])

    teacher_keys = jax.vmap(lambda key: jax.random.split(key, len(design.teacher_names)))(keys[:, 3])
    train_all = partial(_train_teachers, teacher_keys, share_elsewhere=share_elsewhere, design=design)
    params, attempts, trained = train_until_good(train_all, retrain_failed=retrain_failed)
    logits, test_logits = (_teacher_logits(params, inputs, design.training) for inputs, _ in (train, test))
    test_probs = design.class_probs(test[0])

    draws = []
    for i in range(len(seeds)):
        true_probs, (test_inputs, test_labels) = np.asarray(test_probs[i]), (np.asarray(part[i]) for part in test)
        draws.append(
            Simulation(
                inputs=np.asarray(train[0][i]),
                labels=np.asarray(train[1][i]),
                label_order=np.asarray(label_order[i]),
                teacher_logits=np.asarray(logits[i]),
                test_inputs=test_inputs,
                test_labels=test_labels,
                test_probs=true_probs,
                test_domains=design.domain_of(test_inputs, test_labels),
                test_teacher_logits=np.asarray(test_logits[i]),
                test_nll_limit=float(-np.log(true_probs[np.arange(design.num_test), test_labels]).mean()),
                teacher_attempts=attempts[i],
                teacher_trained=trained[i],
            )
        )
    return draws


class Teacher(nn.Module):
    """A multilayer perceptron with dropout after each hidden layer.

    The masks of the dropout are an argument, so that they can be drawn once an epoch and not for each minibatch.
    """

    training: Training

    @nn.compact
    def __call__(self, inputs, keep=None):
        """Logits ``[B, C]``; ``keep [B, sum of widths]`` says which hidden units are kept, and without it all are."""
        hidden, start = inputs, 0
        for width in self.training.widths:
            hidden = nn.relu(nn.Dense(width)(hidden))
            if keep is not None:
                hidden = hidden * keep[:, start : start + width] / (1.0 - self.training.dropout)
            start += width
        return nn.Dense(self.training.num_classes)(hidden)


def teacher_examples(
    design: Design, key: Key, teacher: jax.Array, share_elsewhere: float
) -> tuple[jax.Array, jax.Array]:
    """A teacher's training data: its own domain, but for ``share_elsewhere`` of the examples on average."""
    own_key, everywhere_key, choice_key = jax.random.split(key, 3)
    count = design.training.num_examples
    own = design.draw_own_examples(own_key, teacher, count)
    everywhere = design.draw_examples(everywhere_key, count)
    is_own = jax.random.bernoulli(choice_key, 1.0 - share_elsewhere, (count,))
    return jnp.where(is_own[:, None], own[0], everywhere[0]), jnp.where(is_own, own[1], everywhere[1])


def train_until_good(
    train: Callable[[jax.Array], tuple[Params, jax.Array]], *, retrain_failed: bool
) -> tuple[Params, np.ndarray, np.ndarray]:
    """Parameters, number of attempts and success of each teacher, ``[draws, G, ...]``.

    Args:
      train: ``attempt -> (parameters, success)`` of all teachers, which see the same data in each attempt.
      retrain_failed: whether a teacher that failed is trained again, up to five times in all.
    """
    params, success = train(jnp.int32(0))
    trained = np.asarray(success)
    attempts = np.ones(trained.shape, np.int32)
    while retrain_failed and not trained.all() and attempts.max() < _MAX_ATTEMPTS:
        # Teachers that are good already are trained again and thrown away: cheaper than compiling for another shape.
        again, better = train(jnp.int32(attempts.max()))
        attempts = np.where(trained, attempts, attempts + 1)
        params = jax.tree.map(partial(_keep_where, trained), params, again)
        trained = trained | np.asarray(better)
    return params, attempts, trained


def _train_teacher(key: Key, inputs: jax.Array, labels: jax.Array, training: Training) -> tuple[Params, jax.Array]:
    """Adam on the cross-entropy; returns the parameters and whether the teacher learned anything."""
    teacher = Teacher(training)
    init_key, dropout_key = jax.random.split(key)
    params = teacher.init(init_key, inputs[:1])
    num_batches = training.num_examples // training.batch_size
    optimizer = optax.adam(optax.cosine_decay_schedule(training.learning_rate, training.num_epochs * num_batches))
    # The examples are in random order as they are drawn, so that minibatches can be cut from them as they stand.
    shape = (num_batches, training.batch_size)
    batches = (inputs.reshape(*shape, -1), labels.reshape(shape))

    def mean_nll(params, inputs, labels, keep=None):
        logits = teacher.apply(params, inputs, keep)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry, batch):
        params, state = carry
        updates, state = optimizer.update(jax.grad(mean_nll)(params, *batch), state)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, epoch_key):
        keep = jax.random.bernoulli(epoch_key, 1.0 - training.dropout, (*shape, sum(training.widths)))
        return jax.lax.scan(step, carry, (*batches, keep))[0], None

    epoch_keys = jax.random.split(dropout_key, training.num_epochs)
    (params, _), _ = jax.lax.scan(epoch, (params, optimizer.init(params)), epoch_keys)
    frequency_nll = entr(jax.nn.one_hot(labels, training.num_classes).mean(0)).sum()
    return params, mean_nll(params, inputs, labels) < _TRAINED_NLL_RATIO * frequency_nll


@partial(jax.jit, static_argnames=("share_elsewhere", "design"))
def _train_teachers(keys: Key, attempt: jax.Array, *, share_elsewhere: float, design: Design):
    """All teachers of all draws at once: ``keys [draws, G]``. Each attempt sees the same data, from another seed."""

    def one(key, teacher):
        data_key, attempts_key = jax.random.split(key)
        inputs, labels = teacher_examples(design, data_key, teacher, share_elsewhere)
        return _train_teacher(jax.random.fold_in(attempts_key, attempt), inputs, labels, design.training)

    return jax.vmap(jax.vmap(one), in_axes=(0, None))(keys, jnp.arange(len(design.teacher_names)))


def _keep_where(is_kept: np.ndarray, old: jax.Array, new: jax.Array) -> jax.Array:
    """``old [draws, G, ...]`` for the teachers that are kept, ``new`` for the others."""
    return jnp.where(is_kept.reshape(is_kept.shape + (1,) * (old.ndim - 2)), old, new)


@partial(jax.jit, static_argnames="training")
def _teacher_logits(params: Params, inputs: jax.Array, training: Training) -> jax.Array:
    """Logits ``[draws, N, G, C]`` of teachers ``[draws, G]`` at inputs ``[draws, N, features]``."""
    of_one_draw = jax.vmap(Teacher(training).apply, in_axes=(0, None), out_axes=1)
    return jax.vmap(of_one_draw)(params, inputs)
