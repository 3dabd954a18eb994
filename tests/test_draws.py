import json
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax.draw_chunks import FORMAT
from mtbkd_jax.draws import blocks_of_draws, create_draws, open_draws
from mtbkd_jax.errors import CorruptDataError, InputError, StorageError
from mtbkd_jax.storage import read_manifest, write_manifest
from tests.full_disk import full_disk

TEMPLATE = {"dense": {"bias": jnp.zeros(3), "kernel": jnp.zeros((2, 3))}, "scale": jnp.zeros(())}
ALIVE = np.array([-1, -1])


def some_draws(count, seed=0, num_chains=2):
    generator = np.random.default_rng(seed)
    shape = (num_chains, count)
    positions = jax.tree.map(lambda leaf: generator.normal(size=(*shape, *leaf.shape)).astype(np.float32), TEMPLATE)
    return positions, generator.normal(size=shape).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    """Seven draws planned, in chunks of three: the last chunk is a short one."""
    return create_draws(tmp_path / "draws", TEMPLATE, num_chains=2, num_draws=7, draws_per_chunk=3)


def fill(store):
    for seed, count in enumerate((3, 3, 1)):
        store.append(*some_draws(count, seed), ALIVE)
    return jax.tree.map(
        lambda *parts: np.concatenate(parts, axis=1), *(some_draws(c, s) for s, c in enumerate((3, 3, 1)))
    )


def chunk_files(store):
    return sorted(path for path in (store.path / "positions").rglob("*") if path.is_file() and path.name != "zarr.json")


def test_what_was_appended_is_read_back_to_the_bit(store):
    positions, log_density = fill(store)
    opened = open_draws(store.path)
    assert (opened.num_draws, opened.num_chains) == (7, 2)
    jax.tree.map(np.testing.assert_array_equal, opened.positions(), positions)
    np.testing.assert_array_equal(opened.log_density(), log_density)
    jax.tree.map(
        np.testing.assert_array_equal, opened.positions(2, 5), jax.tree.map(lambda leaf: leaf[:, 2:5], positions)
    )


def test_appending_writes_no_earlier_file_again(store):
    store.append(*some_draws(3), ALIVE)
    before = {path: path.stat().st_mtime_ns for path in chunk_files(store)}
    store.append(*some_draws(3, seed=1), ALIVE)
    assert len(chunk_files(store)) == 2 * len(before)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_interrupted_run_leaves_what_its_manifest_counts_and_can_go_on(store, monkeypatch):
    store.append(*some_draws(3), ALIVE)
    monkeypatch.setattr(store, "_write_manifest", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        store.append(*some_draws(3, seed=9), ALIVE)
    opened = open_draws(store.path)
    assert opened.num_draws == 3
    opened.append(*some_draws(3, seed=1), ALIVE)
    np.testing.assert_array_equal(open_draws(store.path).log_density(3, 6), some_draws(3, seed=1)[1])


def test_a_full_disk_is_a_storage_error_and_leaves_the_draws_before_it(store):
    store.append(*some_draws(3), ALIVE)
    with full_disk(50), pytest.raises(StorageError, match="Free some space"):
        store.append(*some_draws(3, seed=1), ALIVE)
    opened = open_draws(store.path)
    assert opened.num_draws == 3
    jax.tree.map(np.testing.assert_array_equal, opened.positions(), some_draws(3)[0])


def test_chains_that_failed_are_not_read(store):
    positions, log_density = some_draws(3)
    log_density[0] = np.nan
    store.append(positions, log_density, np.array([4, -1]))
    opened = open_draws(store.path)
    assert opened.failed_at.tolist() == [4, -1]
    assert opened.num_chains == 1
    np.testing.assert_array_equal(opened.log_density(), log_density[1:])
    jax.tree.map(np.testing.assert_array_equal, opened.positions(), jax.tree.map(lambda leaf: leaf[1:], positions))


@pytest.mark.parametrize("damage", ["truncated", "altered", "removed"])
def test_a_damaged_file_is_noticed_when_it_is_read(store, damage):
    fill(store)
    file = chunk_files(store)[0]
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content if damage == "altered" else content[:-20])
    with pytest.raises(CorruptDataError):
        open_draws(store.path).positions()


@pytest.mark.parametrize("array", ["positions", "log_density"])
@pytest.mark.parametrize("origin", ["another run", "another chain", "other draws"])
def test_a_file_that_was_written_for_another_place_is_refused_by_its_name(store, tmp_path, array, origin):
    fill(store)
    other = create_draws(tmp_path / "other", TEMPLATE, num_chains=2, num_draws=7, draws_per_chunk=3)
    fill(other)
    source = {"another run": (other, 1, 0), "another chain": (store, 0, 0), "other draws": (store, 1, 1)}[origin]
    names = [array, "seals"] if origin == "another run" else [array]
    for name in names:  # a whole shard of the other run is as good as its seals
        inner = "" if name == "log_density" else "0"
        file = store.path / name / "c" / "1" / "0" / inner
        found = source[0].path / name / "c" / str(source[1]) / str(source[2]) / inner
        file.write_bytes(found.read_bytes())
    opened = open_draws(store.path)
    with pytest.raises(CorruptDataError, match=f"{array}/c/1/0.*seal of draw 0.*chain 1"):
        opened.positions() if array == "positions" else opened.log_density()
    opened.positions(3, 7)


def test_what_is_read_does_not_depend_on_how_many_processes_wrote_it(store, tmp_path, monkeypatch):
    positions, log_density = fill(store)
    shared = create_draws(tmp_path / "shared", TEMPLATE, num_chains=2, num_draws=7, draws_per_chunk=3)
    first, second, third = (open_draws(shared.path) for _ in range(3))
    for start, stop in ((0, 3), (3, 6), (6, 7)):
        for writer, chains in ((second, [1]), (first, [0]), (third, [])):  # the third shares a chain with another
            monkeypatch.setattr("mtbkd_jax.draw_chunks.is_first", lambda writer=writer: writer is first)
            rows = jax.tree.map(lambda leaf, c=chains, d=np.s_[start:stop]: leaf[c, d], (positions, log_density))
            writer.append(*rows, ALIVE, np.array(chains, int))
        assert open_draws(shared.path).num_draws == stop
    jax.tree.map(np.testing.assert_array_equal, open_draws(shared.path).positions(), store.positions())
    np.testing.assert_array_equal(open_draws(shared.path).log_density(), store.log_density())
    files = [
        sorted(str(path.relative_to(one.path)) for path in one.path.rglob("*") if path.is_file())
        for one in (shared, store)
    ]
    assert files[0] == files[1]


def test_an_altered_manifest_is_noticed_when_the_store_is_opened(store):
    path = store.path / "manifest.json"
    content = json.loads(path.read_text()) | {"num_complete": 5}
    path.write_text(json.dumps(content))
    with pytest.raises(CorruptDataError):
        open_draws(store.path)


@pytest.mark.parametrize(
    "template",
    [
        {"scale": jnp.zeros(())},
        TEMPLATE | {"scale": jnp.zeros(1)},
        TEMPLATE | {"scale": jnp.zeros((), jnp.float16)},
        {"dense": TEMPLATE["dense"], "other": jnp.zeros(())},
    ],
    ids=["leaf missing", "shape", "type", "name"],
)
def test_draws_of_another_model_are_refused(store, template):
    open_draws(store.path, TEMPLATE)
    with pytest.raises(InputError, match="parameters"):
        open_draws(store.path, template)


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


def test_parameters_that_are_no_dictionaries_need_their_template(tmp_path):
    template = Pair(jnp.zeros(2), jnp.zeros(1))
    store = create_draws(tmp_path / "draws", template, num_chains=1, num_draws=1)
    store.append(
        Pair(np.ones((1, 1, 2), np.float32), np.zeros((1, 1, 1), np.float32)), np.zeros((1, 1)), np.array([-1])
    )
    assert open_draws(store.path, template).positions().first.tolist() == [[[1.0, 1.0]]]
    with pytest.raises(InputError, match="template"):
        open_draws(store.path)


def test_an_append_of_another_size_is_refused(store):
    for count in (2, 4):
        with pytest.raises(InputError):
            store.append(*some_draws(count), ALIVE)
    fill(store)
    with pytest.raises(InputError):
        store.append(*some_draws(1), ALIVE)


def test_a_directory_with_something_in_it_is_refused(store):
    with pytest.raises(InputError):
        create_draws(store.path, TEMPLATE, num_chains=2, num_draws=7)


def test_leaves_of_several_types_are_refused(tmp_path):
    template = {"a": jnp.zeros(1), "b": jnp.zeros(1, jnp.float16)}
    with pytest.raises(InputError, match="types"):
        create_draws(tmp_path / "draws", template, num_chains=2, num_draws=7)


def test_bfloat16_takes_half_the_space_and_rounds_to_the_nearest(tmp_path):
    sizes = {"num_chains": 2, "num_draws": 3}
    exact = create_draws(tmp_path / "exact", TEMPLATE, **sizes)
    rounded = create_draws(tmp_path / "rounded", TEMPLATE, storage_type="bfloat16", **sizes)
    positions, log_density = some_draws(3)
    for store in (exact, rounded):
        store.append(positions, log_density, ALIVE)
    opened = open_draws(rounded.path, TEMPLATE)
    for leaf, expected in zip(jax.tree.leaves(opened.positions()), jax.tree.leaves(positions), strict=True):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, expected, rtol=2**-8, atol=0)
        np.testing.assert_array_equal(leaf, expected.astype(jnp.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(opened.log_density(), log_density)
    # Besides checksums and an index, ten numbers of each of three draws.
    exact_size, rounded_size = (chunk_files(store)[0].stat().st_size for store in (exact, rounded))
    assert exact_size - rounded_size == 3 * 10 * 2


def test_one_draw_is_read_whatever_has_become_of_the_others_of_its_chunk(store):
    positions, _ = fill(store)
    file = chunk_files(store)[0]
    content = bytearray(file.read_bytes())
    content[5] ^= 1  # of the first draw
    file.write_bytes(content)
    jax.tree.map(
        np.testing.assert_array_equal, store.positions(1, 7, 2), jax.tree.map(lambda leaf: leaf[:, 1::2], positions)
    )
    with pytest.raises(CorruptDataError):
        store.positions(0, 1)


def test_another_storage_type_is_refused(tmp_path):
    with pytest.raises(InputError, match="storage_type"):
        create_draws(tmp_path / "draws", TEMPLATE, num_chains=2, num_draws=7, storage_type="int8")


def test_draws_that_an_earlier_version_wrote_can_be_read(store):
    positions, _ = fill(store)
    path = store.path / "manifest.json"
    manifest = read_manifest(path, **FORMAT)
    newer = "kind", "storage_type", "format", "id"
    of_version_1 = {name: manifest[name] for name in manifest if name not in newer}
    shutil.rmtree(store.path / "seals")
    write_manifest(path, of_version_1 | {"draws_per_chunk": 3}, format_name="mtbkd_jax.draws", version=1)
    jax.tree.map(np.testing.assert_array_equal, open_draws(store.path).positions(), positions)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("values", [1, 40, 1 << 21])
def test_blocks_of_draws_are_all_of_them_or_every_so_many(store, monkeypatch, every, values):
    monkeypatch.setattr("mtbkd_jax.draws._BLOCK_VALUES", values)
    positions, _ = fill(store)
    for draws in (jax.tree.map(jnp.asarray, positions), store):
        blocks = list(blocks_of_draws(draws, every=every))
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *blocks)
        jax.tree.map(np.testing.assert_array_equal, joined, jax.tree.map(lambda leaf: leaf[:, ::every], positions))
        # Two chains of ten parameters.
        assert max(jax.tree.leaves(block)[0].shape[1] for block in blocks) <= max(1, values // 20)


@pytest.mark.parametrize(("size", "expected"), [(10, 100), (100_000, 10), (10**8, 1)])
def test_a_chunk_has_as_many_draws_as_fit_in_little_memory(tmp_path, size, expected):
    template = jax.ShapeDtypeStruct((size,), jnp.float32)
    assert create_draws(tmp_path / "draws", template, num_chains=2, num_draws=1000).draws_per_chunk == expected
