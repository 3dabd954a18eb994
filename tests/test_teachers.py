"""Tests of mtbkd_jax.teachers: outputs by id, whole or refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbkd_jax import storage
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.teacher_writer import TeacherOutputsWriter, write_teacher_outputs
from mtbkd_jax.teachers import TeacherOutputs, open_teacher_outputs, softened_probs
from tests.small_teachers import CLASS_NAMES, IDS, refused


def test_a_directory_describes_itself_and_returns_logits_by_id(directory, logits):
    outputs = open_teacher_outputs(directory)
    assert outputs.names == ("a", "b/../c")
    assert outputs.class_names == CLASS_NAMES
    assert (outputs.num_classes, outputs.num_examples) == (3, 10)
    assert outputs.softening == (2.0, 1.0)
    assert outputs.sources == ("model A, revision 3", "")
    np.testing.assert_array_equal(outputs.ids, IDS)
    outputs.verify()
    order = np.array([7, 0, 7, 3])
    np.testing.assert_array_equal(outputs.logits(IDS[order]), logits[order])
    assert outputs.logits(IDS).dtype == np.float32


def test_opening_reads_only_the_manifest(directory):
    for path in [path for path in directory.rglob("*") if path.is_file() and path.name != "teachers.json"]:
        path.unlink()
    assert open_teacher_outputs(directory).names == ("a", "b/../c")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", None),
        ("num_classes", "3"),
        ("num_examples", True),
        ("num_examples", 10**12),
        ("id_bytes", 0),
        ("id_bytes", 10**12),
        ("class_names", [["a"], "b", "c"]),
        ("class_names", ["a", "b"]),
        ("teachers", []),
        ("teachers", [{"name": "a"}]),
        ("teachers", "a"),
        ("conditions", 3),
        ("version", None),
    ],
)
def test_a_manifest_that_was_altered_with_its_digest_is_refused(directory, field, value):
    body = storage.read_json(directory / "teachers.json") | {field: value}
    body.pop("sha256")
    storage.write_json(directory / "teachers.json", body | {"sha256": storage._digest(body)})
    with pytest.raises(InputError):
        open_teacher_outputs(directory).logits(IDS)


def test_rows_that_are_said_to_be_there_are_not_given_memory(directory):
    metadata = storage.read_json(directory / "logits" / "0" / "zarr.json")
    metadata["shape"] = [10**11, 3]
    storage.write_json(directory / "logits" / "0" / "zarr.json", metadata)
    manifest = storage.read_json(directory / "teachers.json") | {"num_examples": 10**11}
    outputs = TeacherOutputs(directory, manifest)
    outputs.__dict__["ids"] = IDS
    with pytest.raises(CorruptDataError, match=r"blocks: found .* bytes, expected 1200000000000 or more"):
        outputs.logits(IDS)


def test_an_array_that_is_compressed_is_not_ours(directory):
    metadata = storage.read_json(directory / "logits" / "0" / "zarr.json")
    metadata["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 1}})
    storage.write_json(directory / "logits" / "0" / "zarr.json", metadata)
    with pytest.raises(CorruptDataError, match=r"codecs and blocks: found .*gzip"):
        open_teacher_outputs(directory).logits(IDS)


def test_numbers_that_are_not_finite_are_refused_when_read(tmp_path, logits):
    path = tmp_path / "out"
    with TeacherOutputsWriter(path, ["a"], ids=IDS) as writer:
        writer.append("a", IDS, logits[:, 0])
        writer._rows["a"].pending[0][3] = np.nan
    with refused("out", "logits of a", "NaN in row 3", "Correct or leave out these rows"):
        open_teacher_outputs(path).logits(IDS)


def test_ids_that_are_missing_are_named(directory):
    outputs = open_teacher_outputs(directory)
    with refused("outputs", "ids", "no outputs for 2 of 3 examples: 'x', '~'", "Add them, or leave these examples out"):
        outputs.logits(np.array(["x", IDS[0], "~"]))


def test_an_unfinished_directory_is_not_opened(tmp_path, logits):
    def interrupted(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_teacher_outputs(tmp_path / "out", {"a": logits[:, 0], "b": interrupted}, ids=IDS, inputs=IDS)
    with refused("out", "teachers.json", "no such file", "Check the path; where writing was interrupted"):
        open_teacher_outputs(tmp_path / "out")


def stored_files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("damage", ["altered", "truncated", "removed"])
def test_any_damage_to_any_file_is_found(directory, number, damage):
    files = stored_files(directory)
    assert len(files) == 7  # the manifest, and metadata and one chunk of the ids and of each teacher
    path = [path for path in files if path.name != "teachers.json"][number]
    content = bytearray(path.read_bytes())
    if damage == "removed":
        path.unlink()
    else:
        content[20] ^= 4
        path.write_bytes(content if damage == "altered" else content[:20])
    outputs = open_teacher_outputs(directory)
    with pytest.raises(CorruptDataError, match=r"outputs.*found .*expected .*Copy it again"):
        outputs.verify()


def test_an_altered_manifest_is_found(directory):
    content = json.loads((directory / "teachers.json").read_text())
    content["class_names"].reverse()
    (directory / "teachers.json").write_text(json.dumps(content))
    with pytest.raises(CorruptDataError, match=r"teachers\.json: sha256: found .*expected .*Copy it again"):
        open_teacher_outputs(directory)


def test_logits_replaced_by_others_with_valid_checksums_are_found(tmp_path, directory, logits):
    other = write_teacher_outputs(tmp_path / "other", {"a": -logits[:, 0]}, ids=IDS)
    chunk = "logits/0/c/0/0"
    (directory / chunk).write_bytes((tmp_path / "other" / chunk).read_bytes())
    outputs = open_teacher_outputs(directory)
    np.testing.assert_array_equal(outputs.logits(IDS)[:, 0], other.logits(IDS)[:, 0])
    with pytest.raises(CorruptDataError, match="outputs: logits of a: found content with the SHA-256 digest"):
        outputs.verify()


def test_the_temperature_is_relative_to_the_teachers_own_logits(logits):
    plain = jax.nn.softmax(logits / 3.0)
    softened_before = logits / np.array([1.0, 5.0], np.float32)[:, None]
    probs = softened_probs(jnp.asarray(softened_before), 3.0, jnp.array([1.0, 5.0]))
    traced = jax.jit(softened_probs)(softened_before, jnp.array(3.0), jnp.array([1.0, 5.0]))
    # Rounding of logits of magnitude 3 in float32: a few units of 2^-23.
    np.testing.assert_allclose(probs, plain, rtol=3e-6)
    np.testing.assert_allclose(traced, plain, rtol=3e-6)
    with pytest.raises(InputError, match="temperature: value: found 0"):
        softened_probs(logits, 0.0, np.ones(2, np.float32))
