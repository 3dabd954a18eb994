"""Tests of mtbkd_jax.given_centers."""

import json
import os
import pickle
import struct

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
from flax import nnx

from mtbkd_jax.errors import CorruptDataError, InputError, StorageError
from mtbkd_jax.given_centers import read_params, stack_centers, write_params
from mtbkd_jax.students import cnn, from_nnx, mlp
from mtbkd_jax.tree import named_leaves

STUDENT = mlp(num_features=4, hidden=(8,), num_classes=3)
TEMPLATE = jax.eval_shape(STUDENT.init, jax.random.key(0))
PARAMS = STUDENT.init(jax.random.key(1))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])

    def __call__(self, inputs):
        return self.layers[1](nnx.relu(self.layers[0](inputs)))


def save_orbax(path, params):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, params)


WAYS = pytest.mark.parametrize("save", [write_params, save_orbax], ids=["safetensors", "orbax"])


def changed(name, change):
    """PARAMS with one leaf changed, or left out where the change returns None."""
    leaves = {key: change(leaf) if key == name else leaf for key, leaf in named_leaves(PARAMS).items()}
    nested: dict = {}
    for key, leaf in leaves.items():
        if leaf is not None:
            layer, part = key.split(".")
            nested.setdefault(layer, {})[part] = leaf
    return nested


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@WAYS
@pytest.mark.parametrize(
    "student",
    [STUDENT, cnn(image_shape=(8, 8), channels=(3, 4), num_classes=2), from_nnx(Net)],
    ids=["mlp", "cnn", "nnx"],
)
def test_what_was_written_is_read_back(tmp_path, student, save):
    params = student.init(jax.random.key(1))
    save(tmp_path / "center", params)
    read = read_params(tmp_path / "center", jax.eval_shape(student.init, jax.random.key(0)))
    assert_same(read, params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(read))


@WAYS
def test_other_types_are_kept(tmp_path, save):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    save(tmp_path / "center", params)
    assert_same(read_params(tmp_path / "center", params), params)


def test_names_are_joined_by_dots(tmp_path):
    write_params(tmp_path / "center", PARAMS)
    names = set(safetensors.numpy.load_file(tmp_path / "center"))
    assert names == {"Dense_0.kernel", "Dense_0.bias", "Dense_1.kernel", "Dense_1.bias"}


@pytest.mark.parametrize("use_ocdbt", [True, False])
def test_a_checkpoint_of_numpy_arrays_and_either_layout_is_read(tmp_path, use_ocdbt):
    with ocp.PyTreeCheckpointer(use_ocdbt=use_ocdbt) as checkpointer:
        checkpointer.save(tmp_path / "center", jax.tree.map(np.asarray, PARAMS))
    assert_same(read_params(tmp_path / "center", TEMPLATE), PARAMS)


def test_a_path_relative_to_the_working_directory_will_do(tmp_path, monkeypatch):
    save_orbax(tmp_path / "center", PARAMS)
    monkeypatch.chdir(tmp_path)
    assert_same(read_params("center", TEMPLATE), PARAMS)


@WAYS
@pytest.mark.parametrize(
    ("params", "message"),
    [
        (changed("Dense_1.bias", lambda leaf: None), r"Dense_1.bias: found no such leaf, expected float32 of shape"),
        (
            {**PARAMS, "Dense_2": {"kernel": jnp.ones(3)}},
            r"Dense_2.kernel: found float32 of shape \(3,\), expected no such leaf\. Remove it",
        ),
        (
            {"Dense_0": PARAMS["Dense_0"], "head": PARAMS["Dense_1"]},
            r"Dense_1.bias: found no such leaf, but 2 that the student does not have: 'head.bias', 'head.kernel'",
        ),
        (
            changed("Dense_0.kernel", lambda leaf: leaf.T),
            r"Dense_0.kernel: found float32 of shape \(8, 4\), expected float32 of shape \(4, 8\)",
        ),
        (
            changed("Dense_0.kernel", lambda leaf: leaf[:, :5]),
            r"Dense_0.kernel: found float32 of shape \(4, 5\), expected float32 of shape \(4, 8\)",
        ),
        (
            changed("Dense_0.bias", lambda leaf: leaf.astype(jnp.float16)),
            r"Dense_0.bias: found float16 of shape \(8,\), expected float32 of shape \(8,\)",
        ),
        (
            changed("Dense_0.bias", lambda leaf: leaf.astype(jnp.int32)),
            r"Dense_0.bias: found (I32|int32) of shape \(8,\), expected float32 of shape \(8,\)",
        ),
    ],
    ids=["missing", "extra", "renamed", "transposed", "narrower", "float16", "int32"],
)
def test_parameters_of_another_architecture_are_refused(tmp_path, save, params, message):
    save(tmp_path / "center", params)
    with pytest.raises(InputError, match=rf"center: {message}"):
        read_params(tmp_path / "center", TEMPLATE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    params = changed("Dense_0.kernel", lambda leaf: leaf.at[2, 3].set(value))
    save_orbax(tmp_path / "orbax", params)
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(params).items()}
    safetensors.numpy.save_file(leaves, tmp_path / "safetensors")
    for name in ("orbax", "safetensors"):
        with pytest.raises(InputError, match=rf"{name}: Dense_0.kernel: found 1 of 32 numbers NaN or infinite"):
            read_params(tmp_path / name, TEMPLATE)
    with pytest.raises(InputError, match=r"new: Dense_0.kernel: found 1 of 32 numbers NaN or infinite"):
        write_params(tmp_path / "new", params)
    assert not (tmp_path / "new").exists()


def longer(content):
    return content + b"more"


def without_its_end(content):
    return content[:-3]


def half_a_header(content):
    return content[:50]


def nothing(content):
    return b""


def altered_header(content):
    return content[:8] + b"x" * (len(content) - 8)


def pickled(content):
    return pickle.dumps({"Dense_0.kernel": np.ones((4, 8), np.float32)})


def text(content):
    return b"id,logit\n1,0.5\n"


def tensor_past_the_end(content):
    header = json.dumps({"Dense_0.kernel": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


@pytest.mark.parametrize(
    "damage",
    [longer, without_its_end, half_a_header, nothing, altered_header, pickled, text, tensor_past_the_end],
    ids=lambda damage: damage.__name__,
)
def test_a_file_that_is_damaged_or_something_else_is_refused(tmp_path, damage):
    path = tmp_path / "center.safetensors"
    write_params(path, PARAMS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptDataError, match=r"center.safetensors: content: found something else .*a whole safeten"):
        read_params(path, TEMPLATE)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-10])


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("use_ocdbt", "files", "damage"),
    [
        (True, "_METADATA", cut_short),
        (True, "manifest.ocdbt", cut_short),
        (True, "d/*", cut_short),
        (True, "d/*", remove),
        (False, "w/.zarray", cut_short),
        (False, "w/0", cut_short),
        (False, "w/0", remove),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, use_ocdbt, files, damage):
    # One leaf: where one of several fails, Orbax leaves the other reads to end in threads of their own, with warnings.
    # It is of noise, and long, so that its numbers are in a file of their own.
    params = {"w": jax.random.normal(jax.random.key(0), (1000,))}
    path = tmp_path / "center"
    with ocp.PyTreeCheckpointer(use_ocdbt=use_ocdbt) as checkpointer:
        checkpointer.save(path, params)
    damaged = list(path.glob(files))
    assert damaged
    for file in damaged:
        damage(file)
    with pytest.raises(CorruptDataError, match=r"center: (metadata|arrays): found something that Orbax cannot read"):
        read_params(path, params)


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"_METADATA: found no such file, expected the directory of an Orbax checkp"):
        read_params(tmp_path, TEMPLATE)


def test_the_directory_above_the_tree_is_refused_with_a_hint(tmp_path):
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "7", ocp.args.Composite(default=ocp.args.StandardSave(PARAMS)))
    with pytest.raises(InputError, match=r"in the directory of a step it is often called `default`"):
        read_params(tmp_path / "7", TEMPLATE)
    assert_same(read_params(tmp_path / "7" / "default", TEMPLATE), PARAMS)


def test_a_path_with_nothing_there_or_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none: file: found nothing, expected a safetensors file or the directory"):
        read_params(tmp_path / "none", TEMPLATE)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"pipe: file: found something that is neither"):
        read_params(tmp_path / "pipe", TEMPLATE)


def test_a_file_is_never_overwritten(tmp_path):
    path = tmp_path / "center"
    path.write_text("mine")
    with pytest.raises(InputError, match=r"center: output file: found a file, expected a new file"):
        write_params(path, PARAMS)
    assert path.read_text() == "mine"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_file_that_cannot_be_written_whole_is_not_left_behind(tmp_path, monkeypatch):
    def full(path, mode):
        path.touch()
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr("mtbkd_jax.given_centers.open", full, raising=False)
    with pytest.raises(StorageError, match="No space left"):
        write_params(tmp_path / "center", PARAMS)
    assert not (tmp_path / "center").exists()


def test_centers_are_stacked_in_their_order():
    others = [STUDENT.init(jax.random.key(seed)) for seed in range(3)]
    stacked = stack_centers(others)
    for row, params in enumerate(others):
        assert_same(jax.tree.map(lambda leaf, row=row: leaf[row], stacked), params)


@pytest.mark.parametrize(
    ("centers", "message"),
    [
        ([], r"centers: components: found none, expected one or more"),
        (
            [STUDENT.init(jax.random.key(0)), PARAMS, PARAMS],
            r"centers\[2\]: parameters: found the same parameters as in centers\[1\]",
        ),
        ([PARAMS, changed("Dense_1.bias", lambda leaf: None)], r"centers\[1\]: Dense_1.bias: found no such leaf"),
        ([PARAMS, changed("Dense_1.bias", lambda leaf: leaf[:1])], r"centers\[1\]: Dense_1.bias: found float32 of sha"),
        ([changed("Dense_1.bias", lambda leaf: leaf / 0)], r"centers\[0\]: Dense_1.bias: found 3 of 3 numbers NaN"),
        (
            [{"a": {"b": jnp.ones(2)}}, {"a.b": jnp.zeros(2)}],
            r"centers\[1\]: tree: found PyTreeDef.*Make both with the same student",
        ),
    ],
)
def test_centers_that_do_not_go_together_are_refused(centers, message):
    with pytest.raises(InputError, match=message):
        stack_centers(centers)
