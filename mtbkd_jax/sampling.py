"""Running chains: burn-in, thinning, chunks, several devices, and chains that fail.

One compiled program advances all chains from draw to draw, without a round trip to the host in between. How many steps
lie between two draws, and how many draws a chunk has, are arguments of that program; so it compiles once for the
burn-in and for every chunk, and the numbers cannot depend on how a run is cut.
"""

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, Int

from mtbkd_jax.chains import (
    DrawBatch,
    chain_mesh,
    copy_data,
    copy_own_blocks,
    copy_to_all,
    copy_to_chains,
    keys_of_step,
    like_chains,
    on_this_host,
    over_chains,
    own_blocks,
    own_chains,
    rows_of_own_chains,
    specs_with_data,
    with_own,
)
from mtbkd_jax.checkpoints import Checkpoints
from mtbkd_jax.checks import check_not_negative, check_positive
from mtbkd_jax.errors import InputError
from mtbkd_jax.samplers.base import Sampler, SamplerInfo
from mtbkd_jax.schedules import Cyclical, Schedule
from mtbkd_jax.tree import tree_is_finite, tree_where
from mtbkd_jax.types import Key, Params
from mtbkd_jax.windows import Windows


class ChunkReport(NamedTuple):
    """What an observer sees of chains on their way, once a chunk. What is averaged or counted leaves out failed chains.

    Attributes:
      steps_done: by each chain, burn-in included.
      num_steps: of each chain, in all.
      num_planned: draws of each chain, in all.
      chunk: log density, acceptance rate and divergence at the draws of this chunk, ``[all chains, draws]``; a chunk of
        burn-in counts as one draw.
      kept: the same of all draws that were kept so far.
      failed_at: as in ``ChainRun``.
      component_of_chain: which chains sample the same law, ``[all chains]``; None where all do.
    """

    steps_done: int
    num_steps: int
    num_planned: int
    chunk: SamplerInfo
    kept: SamplerInfo
    failed_at: Int[np.ndarray, " all_chains"]
    component_of_chain: Int[np.ndarray, " all_chains"] | None = None

    @property
    def num_draws(self) -> int:
        """Draws of each chain that were kept so far."""
        return self.kept.log_density.shape[1]

    @property
    def mean_log_density(self) -> float:
        """Mean over chains at the last draw, in nats."""
        return float(self.chunk.log_density[self.failed_at < 0, -1].mean())

    @property
    def acceptance_rate(self) -> float:
        """Mean over the chunk."""
        return float(self.chunk.acceptance_rate[self.failed_at < 0].mean())

    @property
    def num_divergent(self) -> int:
        """Draws that were kept so far with a divergent step since the draw before."""
        return int(self.kept.is_divergent[self.failed_at < 0].sum())

    @property
    def num_failed(self) -> int:
        """Chains that have failed."""
        return int((self.failed_at >= 0).sum())


Progress = Callable[[ChunkReport], None]
"""An observer of chains on their way."""


@runtime_checkable
class DrawSink(Protocol):
    """Where draws go as they come, such as ``draws.DrawStore``."""

    @property
    def draws_per_chunk(self) -> int:
        """Draws of one ``append``: the ``chunk_size`` of the run; the last one may have fewer."""

    def append(
        self, positions: Any, log_density: np.ndarray, failed_at: np.ndarray, chains: Int[np.ndarray, " own"]
    ) -> None:
        """Take the next draws of the chains of these numbers, which are all but where several processes sample.

        They come as ``[own chains, draws, ...]``, ``[own chains, draws]``, and ``[all chains]`` as in ``ChainRun``.
        """

    def state(self) -> Any:
        """What a checkpoint must save, as a pytree of arrays, for ``truncate`` to go back to the draws taken so far."""

    def truncate(self, num_draws: int, state: Any) -> None:
        """Forget the draws of every chain beyond the first ``num_draws``, after which the state was this one."""


class ChainRun(NamedTuple):
    """What came out. Chains that failed are in ``failed_at`` and ``states`` only.

    Attributes:
      positions: parameters stacked to ``[chains, draws, ...]``, or the sink that they went to.
      info: log density, acceptance rate and divergence at each draw, ``[chains, draws]``; divergent means at any step
        since the last draw.
      failed_at: the step at which each chain's density or position was no longer finite, ``[all chains]``; -1 is never.
      states: states after the last step, stacked over all chains, to go on from.
    """

    positions: Params | DrawSink
    info: SamplerInfo
    failed_at: Int[np.ndarray, " all_chains"]
    states: Any


class _Chain(NamedTuple):
    """One chain on the device."""

    number: Int[Array, ""]
    own: Any
    state: Any
    failed_at: Int[Array, ""]


class _Draws(NamedTuple):
    """Draws of one chunk; rows beyond the draws asked for are empty."""

    positions: Params
    info: SamplerInfo
    failed_at: Any


class _Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      states: of the sampler, stacked over chains.
      failed_at: as in ``ChainRun``.
      info: of the draws so far, and room for those to come, ``[chains, num_draws]``.
      sink: its state.
    """

    states: Any
    failed_at: Any
    info: SamplerInfo
    sink: Any


class _Chunk(NamedTuple):
    """What the host plans: from ``first_step``, take ``gaps[i]`` steps before draw i."""

    first_step: int
    gaps: Int[np.ndarray, " draws"]
    is_kept: bool


class _Piece(NamedTuple):
    """A part of a chunk that one window is seen in: from ``first_step``, ``gaps[i]`` steps before a draw.

    The draws are those from ``first_draw`` of the chunk on; the last one may be missing steps that the next piece has.
    """

    window: int
    first_step: int
    first_draw: int
    gaps: Int[np.ndarray, " draws"]


def start_chains(sampler: Sampler, positions: Params, key: Key) -> Any:
    """States of the chains that start at ``positions``, which are stacked over chains."""
    num_chains = jax.tree.leaves(positions)[0].shape[0]
    return jax.vmap(sampler.init)(positions, jax.random.split(key, num_chains))


def sample_chains(
    sampler: Sampler,
    states: Any,
    *,
    key: Key,
    data: Any,
    draw_batch: DrawBatch,
    step_size: Schedule,
    num_draws: int,
    num_burn_in: int = 0,
    thinning: int = 1,
    chunk_size: int = 100,
    own_data: Any = None,
    num_blocks: int = 1,
    num_model_blocks: int = 1,
    explorer: Sampler | None = None,
    sink: DrawSink | None = None,
    checkpoints: Checkpoints | None = None,
    progress: Progress | None = None,
) -> ChainRun:
    """Run all chains at once.

    The result depends on the key and the other arguments that say what is sampled, and neither on ``chunk_size`` nor
    (on CPUs) on the number of devices, which share the chains out evenly.

    A chain whose log density or position is no longer finite is frozen there and none of its draws are used.

    Args:
      sampler: what advances a chain.
      states: the states to start from, stacked over chains; they are not changed.
      key: not to be used again.
      data: what ``draw_batch`` draws from; any pytree of arrays, or ``Windows`` that are seen in turn where not all
        of it fits in memory.
      draw_batch: ``(key, data) -> batch``, called in each step of each chain; with ``own_data``, ``(key, (data, own))
        -> batch``.
      step_size: ``step -> number or [chains]``; with a ``cyclical`` schedule, steps outside the sampling parts of the
        cycles do not count for ``thinning``, and no draw is taken there.
      num_draws: draws of each chain to keep.
      num_burn_in: steps before the first that counts.
      thinning: every how many (sampling) steps a draw is kept.
      chunk_size: draws between two visits of the host; memory on the device holds that many.
      own_data: what each chain has to itself, stacked over chains, such as the component that it samples.
      num_blocks: blocks of equal size that the rows of ``data`` lie in, one block after the other, so that devices
        which the chains leave over may share them; then the sampler's log density adds up what the devices say, and
        ``draw_batch`` draws from the blocks of one device.
      num_model_blocks: blocks that the parameters of a chain are cut into, each for a device.
      explorer: sampler for the steps outside the sampling parts of a ``cyclical`` schedule, with states of the same
        kind; None takes the same sampler everywhere.
      sink: where the draws go, of several processes each those of its own chains; None keeps all of them in memory, in
        every process.
      checkpoints: where the chains are saved now and then. Where some were saved already, they go on from there, to the
        bit if the other arguments are the same. The draws are not in them: the ``sink`` must have kept those.
      progress: called once a chunk.

    Raises:
      InputError: if a count is not positive, every chain fails, there are checkpoints and no sink, or the checkpoints
        are of a run of another length.
      PreemptedError: if the checkpoints were asked to stop.
    """
    check_positive(num_draws=num_draws, thinning=thinning, chunk_size=chunk_size)
    if checkpoints is not None and sink is None:
        raise InputError("sample_chains", "checkpoints", "no sink", "a sink that keeps the draws", "Give both.")
    check_not_negative(num_burn_in=num_burn_in)
    num_chains = jax.tree.leaves(states)[0].shape[0]
    schedule: Any = step_size if isinstance(step_size, Partial | Cyclical) else Partial(step_size)
    _check_schedule(schedule, num_chains, explorer)

    mesh = chain_mesh(num_chains, num_blocks, num_model_blocks=num_model_blocks, is_global=True)
    shared = copy_to_all((key, schedule), mesh)
    chunk_size = min(chunk_size, num_draws)
    kept_steps = _kept_steps(schedule, num_burn_in, num_draws, thinning)
    chunks = list(_plan(kept_steps, num_burn_in, chunk_size, thinning))
    no_info, no_draws = _no_info(states, num_chains, num_draws), None if sink is None else sink.state()
    begun = _Saved(states, np.full(num_chains, -1, np.int32), no_info, no_draws)
    num_done, num_kept, saved = 0, 0, begun
    length = {
        "num_chains": num_chains,
        "num_draws": num_draws,
        "num_burn_in": num_burn_in,
        "thinning": thinning,
        "chunk_size": chunk_size,
    }
    if isinstance(data, Windows):
        length |= {"window_size": data.size, "window_steps": data.steps_each}
    if checkpoints is not None and sink is not None:
        if (found := checkpoints.latest(length, begun._replace(states=like_chains(states, mesh)))) is not None:
            num_done, saved = found
            num_kept = sum(len(chunk.gaps) for chunk in chunks[:num_done] if chunk.is_kept)
        sink.truncate(num_kept, saved.sink)  # draws that came after the last checkpoint will come again
    chains = copy_to_chains(_Chain(jnp.arange(num_chains), own_data, saved.states, jnp.asarray(saved.failed_at)), mesh)

    advance = partial(
        _advance_chains, sampler=sampler, explorer=explorer, draw_batch=draw_batch, mesh=mesh, num_blocks=num_blocks
    )

    def advance_in_memory() -> Generator[tuple[_Chain, _Draws], None, None]:
        placed, running = copy_data(data, mesh, num_blocks), chains
        for chunk in chunks[num_done:]:
            gaps = np.pad(chunk.gaps, (0, chunk_size - len(chunk.gaps)))
            arguments = (*shared, chunk.first_step, gaps, len(chunk.gaps), None)
            running, draws = advance((running, None), (placed, arguments))
            yield running, draws

    def advance_in_windows() -> Generator[tuple[_Chain, _Draws], None, None]:
        pieces_of_chunks = [list(_pieces(chunk, data.steps_each)) for chunk in chunks[num_done:]]
        numbers = [piece.window for pieces in pieces_of_chunks for piece in pieces]
        if not numbers:
            return
        running, number = chains, -1
        with data.opened(numbers[0], numbers[-1], own_blocks(mesh, num_blocks)) as windows:
            for pieces in pieces_of_chunks:
                draws = _no_draws(running.state, num_chains, chunk_size, mesh)
                for piece in pieces:
                    if piece.window != number:
                        placed, number = copy_own_blocks(next(windows), mesh, num_blocks), piece.window
                        # The next window is on its way while the chains run, and no more than that one.
                        jax.block_until_ready(running)
                    # One draw more than a chunk has, since the last one of a piece may be missing steps.
                    gaps = np.pad(piece.gaps, (0, chunk_size + 1 - len(piece.gaps)))
                    arguments = (*shared, piece.first_step, gaps, len(piece.gaps), piece.first_draw)
                    running, draws = advance((running, (draws.positions, draws.info)), (placed, arguments))
                yield running, draws

    def compute() -> Iterator[tuple[int, _Chunk, _Draws, Any, Any]]:
        with closing(advance_in_windows() if isinstance(data, Windows) else advance_in_memory()) as advancing:
            for number, chunk in enumerate(chunks[num_done:], start=num_done + 1):
                # Before the device is given work: where processes have to agree, they wait for it.
                is_due = checkpoints is not None and checkpoints.is_due()
                running, draws = next(advancing)
                # The next call takes the buffers over, so that what is saved meanwhile is a copy.
                to_save = jax.tree.map(jnp.copy, running.state) if is_due else None
                # What every process has to know follows its chunk at once, and does not wait for the next.
                info, failed_at = copy_to_all((draws.info, draws.failed_at), mesh)
                yield number, chunk, draws._replace(info=info, failed_at=failed_at), running.state, to_save

    memory = _Memory()
    receiver = memory if sink is None else sink
    own, positions_of = np.arange(num_chains), on_this_host
    if sink is not None:
        own, positions_of = own_chains(chains.number), rows_of_own_chains
    kept = _first_draws(saved.info, num_kept)
    failed_at, last_states = np.asarray(saved.failed_at), chains.state
    for number, chunk, draws, last_states, to_save in _one_behind(compute()):  # noqa: B007
        count = len(chunk.gaps)
        info, failed_at = _first_draws(draws.info, count), np.asarray(draws.failed_at)
        _check_any_alive(failed_at)
        if chunk.is_kept:
            positions = _first_draws(positions_of(draws.positions), count)
            receiver.append(positions, info.log_density[own], failed_at, own)
            kept = _joined(kept, info)
        if progress is not None:
            steps_done = chunk.first_step + int(chunk.gaps.sum())
            progress(ChunkReport(steps_done, int(kept_steps[-1]), num_draws, info, kept, failed_at))
        if checkpoints is not None and sink is not None and to_save is not None:
            # Of the same size however many draws there are, so that it can be read back.
            info = _first_draws(_joined(kept, begun.info), num_draws)
            checkpoints.save(number, length, _Saved(to_save, failed_at, info, sink.state()))

    alive = failed_at < 0
    info = jax.tree.map(lambda rows: jnp.asarray(rows[alive]), kept)
    return ChainRun(memory.stacked(alive) if sink is None else sink, info, failed_at, last_states)


@partial(jax.jit, static_argnames=("sampler", "explorer", "draw_batch", "mesh", "num_blocks"), donate_argnames="chains")
def _advance_chains(
    chains: tuple[_Chain, Any],
    shared: Any,
    *,
    sampler: Sampler,
    explorer: Sampler | None,
    draw_batch: DrawBatch,
    mesh: Mesh,
    num_blocks: int,
) -> tuple[_Chain, _Draws]:
    advance = partial(_advance_chain, sampler=sampler, explorer=explorer, draw_batch=draw_batch)
    return over_chains(advance, mesh, of_shared=specs_with_data(num_blocks))(chains, shared)


def _advance_chain(
    chain_and_rows: tuple[_Chain, Any],
    shared: Any,
    *,
    sampler: Sampler,
    explorer: Sampler | None,
    draw_batch: DrawBatch,
) -> tuple[_Chain, _Draws]:
    """Take the draws of a chunk, or of a piece of it, with the rows that other pieces have filled."""
    chain, begun_rows = chain_and_rows
    data, (key, schedule, first_step, gaps, num_draws, first_draw) = shared
    chain_key = jax.random.fold_in(key, chain.number)
    data = with_own(data, chain.own)

    def call_sampler(step, state):
        batch_key, sampler_key = keys_of_step(chain_key, step)
        step_size = jnp.asarray(schedule(step))
        step_size = step_size[chain.number] if step_size.ndim else step_size
        arguments = sampler_key, state, draw_batch(batch_key, data), step_size
        if explorer is None:
            return sampler.step(*arguments)
        return jax.lax.cond(schedule.is_sampling(step), sampler.step, explorer.step, *arguments)

    def one_step(step, carry):
        chain, was_divergent = carry[0], carry[1].is_divergent
        state, info = call_sampler(step, chain.state)
        is_alive = chain.failed_at < 0
        is_finite = jnp.isfinite(info.log_density)
        state = tree_where(is_alive & is_finite, state, chain.state)
        failed_at = jnp.where(is_alive & ~is_finite, step, chain.failed_at)
        return chain._replace(state=state, failed_at=failed_at), info._replace(
            is_divergent=info.is_divergent | was_divergent
        )

    def one_draw(i, carry):
        chain, step, rows = carry
        next_step = step + gaps[i]
        row, info = (i, no_info) if begun_rows is None else begun_row(i, rows)
        chain, info = jax.lax.fori_loop(step, next_step, one_step, (chain, info))
        is_lost = (chain.failed_at < 0) & ~tree_is_finite(chain.state.position)
        chain = chain._replace(failed_at=jnp.where(is_lost, next_step - 1, chain.failed_at))
        rows = jax.tree.map(lambda of, value: of.at[row].set(value), rows, (chain.state.position, info))
        return chain, next_step, rows

    def begun_row(i, rows):
        """The row of a draw, and whether steps that another piece has taken of it were divergent."""
        row = first_draw + i
        return row, no_info._replace(is_divergent=rows[1].is_divergent[row])

    _, info_shape = jax.eval_shape(call_sampler, first_step, chain.state)
    no_info = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info_shape)
    no_rows = jax.tree.map(
        lambda leaf: jnp.zeros((len(gaps), *leaf.shape), leaf.dtype), (chain.state.position, no_info)
    )
    begun = chain, first_step, no_rows if begun_rows is None else begun_rows
    chain, _, (positions, info) = jax.lax.fori_loop(0, num_draws, one_draw, begun)
    return chain, _Draws(positions, info, chain.failed_at)


def _kept_steps(schedule: Schedule, num_burn_in: int, num_draws: int, thinning: int) -> np.ndarray:
    """How many steps have been taken when each draw is kept."""
    if not isinstance(schedule, Cyclical):
        return num_burn_in + thinning * np.arange(1, num_draws + 1)
    num_sampling = schedule.cycle_length - schedule.num_exploring
    num_cycles = -(-num_draws * thinning // num_sampling) + 1  # the burn-in may end inside a cycle
    steps = np.arange(num_burn_in, num_burn_in + num_cycles * schedule.cycle_length)
    return steps[schedule.is_sampling(steps)][thinning - 1 :: thinning][:num_draws] + 1


def _plan(kept_steps: np.ndarray, num_burn_in: int, chunk_size: int, thinning: int) -> Iterator[_Chunk]:
    """Chunks of burn-in, each as one draw that is not kept, then chunks of draws."""
    for start in range(0, num_burn_in, chunk_size * thinning):
        yield _Chunk(start, np.array([min(chunk_size * thinning, num_burn_in - start)]), is_kept=False)
    edges = np.concatenate([[num_burn_in], kept_steps])
    for start in range(0, len(kept_steps), chunk_size):
        yield _Chunk(int(edges[start]), np.diff(edges[start : start + chunk_size + 1]), is_kept=True)


def _pieces(chunk: _Chunk, steps_each: int) -> Iterator[_Piece]:
    """Cut a chunk where the window changes, every so many steps."""
    ends = chunk.first_step + np.cumsum(chunk.gaps)
    step, draw = chunk.first_step, 0
    while step < ends[-1]:
        stop = min((step // steps_each + 1) * steps_each, int(ends[-1]))
        next_draw = int(np.searchsorted(ends, stop, side="right"))
        edges = [step, *ends[draw:next_draw]]
        yield _Piece(step // steps_each, step, draw, np.diff([*edges, stop] if edges[-1] < stop else edges))
        step, draw = stop, next_draw


def _no_draws(states: Any, num_chains: int, num_draws: int, mesh: Mesh) -> _Draws:
    """Room for the draws of a chunk."""
    shape = num_chains, num_draws
    positions = jax.tree.map(lambda leaf: np.zeros((*shape, *leaf.shape[1:]), leaf.dtype), states.position)
    positions, info = copy_to_chains((positions, _no_info(states, *shape)), mesh)
    return _Draws(positions, info, failed_at=None)


def _one_behind(items: Iterator[Any]) -> Iterator[Any]:
    """Yield each item after the next was asked for: the device computes it while the host handles this one."""
    for previous, _ in itertools.pairwise(itertools.chain(items, [None])):
        yield previous


def _no_info(states: Any, num_chains: int, num_draws: int) -> SamplerInfo:
    """Room for what is known of draws."""
    dtype = jax.tree.leaves(states)[0].dtype
    shape = num_chains, num_draws
    return jax.tree.map(
        np.asarray, SamplerInfo(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, bool))
    )


def _joined(first: SamplerInfo, then: SamplerInfo) -> SamplerInfo:
    return jax.tree.map(lambda *rows: np.concatenate(rows, axis=1), first, then)


def _first_draws(rows: Any, count: int) -> Any:
    return jax.tree.map(lambda row: np.asarray(row)[:, :count], rows)


class _Memory:
    """The sink for draws that stay in memory."""

    def __init__(self) -> None:
        self._chunks: list[Any] = []

    def append(self, positions: Any, log_density: np.ndarray, failed_at: np.ndarray, chains: np.ndarray) -> None:
        del log_density, failed_at, chains  # ChainRun has them, and the chains are all
        self._chunks.append(positions)

    def stacked(self, alive: np.ndarray) -> Params:
        return jax.tree.map(lambda *rows: jnp.asarray(np.concatenate(rows, axis=1)[alive]), *self._chunks)


def _check_schedule(schedule: Schedule, num_chains: int, explorer: Sampler | None) -> None:
    shape = jax.eval_shape(schedule, 0).shape
    if shape not in {(), (num_chains,)}:
        raise InputError(
            "sample_chains",
            "step_size",
            f"an array of shape {shape}",
            f"one number, or one for each of {num_chains} chains",
            "Give the schedule as many step sizes as there are chains.",
        )
    if explorer is not None and not isinstance(schedule, Cyclical):
        raise InputError(
            "sample_chains", "explorer", "one", "none without a cyclical schedule", "Leave it out or use `cyclical`."
        )


def _check_any_alive(failed_at: np.ndarray) -> None:
    if (failed_at >= 0).all():
        raise InputError(
            "sample_chains",
            "log density",
            f"no finite one in any chain after steps {failed_at.tolist()}",
            "a finite log density",
            "Lower the step size, or check the starting positions and the data.",
        )
