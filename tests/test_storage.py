"""Tests of mtbkd_jax.storage."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mtbkd_jax import storage
from mtbkd_jax.errors import CorruptDataError, InputError, StorageError


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


@pytest.fixture
def array(tmp_path, values):
    array = storage.create_array(tmp_path / "array", shape=(10, 3), dtype=np.float32, chunk_shape=(4, 3))
    storage.write(array, slice(0, 10), values)
    return array


def chunk_files(directory):
    return sorted(path for path in (directory / "c").rglob("*") if path.is_file())


@pytest.mark.usefixtures("array")
def test_what_was_written_is_read_back(tmp_path, values):
    array = storage.open_array(tmp_path / "array", shape=(10, 3), dtype=np.float32)
    np.testing.assert_array_equal(storage.read(array, slice(0, 10)), values)
    np.testing.assert_array_equal(storage.read(array, slice(3, 6)), values[3:6])
    np.testing.assert_array_equal(storage.read(array, np.array([9, 0, 5])), values[[9, 0, 5]])


def test_writing_no_rows_writes_nothing(array, values):
    storage.write(array, np.array([], int), values[:0])
    np.testing.assert_array_equal(storage.read(array, slice(0, 10)), values)


def test_resized_along_any_axis_keeps_what_was_written(array, values):
    array = storage.resize(array, (12, 4))
    np.testing.assert_array_equal(storage.read(array, (slice(0, 10), slice(0, 3))), values)


def test_parts_smaller_than_a_chunk_do_not_disturb_each_other(tmp_path, values):
    array = storage.create_array(tmp_path / "parts", shape=(10, 3), dtype=np.float32, chunk_shape=(4, 3))
    for row in range(10):
        storage.write(array, slice(row, row + 1), values[row : row + 1])
    np.testing.assert_array_equal(storage.read(array, slice(0, 10)), values)


def test_zeros_are_stored_and_differ_from_what_was_never_written(tmp_path):
    array = storage.create_array(tmp_path / "zeros", shape=(8,), dtype=np.int32, chunk_shape=(4,))
    storage.write(array, slice(0, 4), np.zeros(4, np.int32))
    np.testing.assert_array_equal(storage.read(array, slice(0, 4)), 0)
    with pytest.raises(CorruptDataError, match="missing"):
        storage.read(array, slice(0, 8))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:20])


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, remove])
def test_a_damaged_chunk_is_found_when_it_is_read(tmp_path, array, damage):
    damage(chunk_files(tmp_path / "array")[1])
    np.testing.assert_array_equal(storage.read(array, slice(0, 4)).shape, (4, 3))
    with pytest.raises(CorruptDataError, match=r"array.*expected what was written there\. Copy it again"):
        storage.read(array, slice(0, 10))


@pytest.mark.usefixtures("array")
def test_another_shape_than_the_manifest_says_is_found_when_it_is_opened(tmp_path):
    with pytest.raises(
        CorruptDataError, match=r"found float32 of shape \(10, 3\), expected float32 of shape \(11, 3\)"
    ):
        storage.open_array(tmp_path / "array", shape=(11, 3), dtype=np.float32)


@pytest.mark.parametrize("damage", [cut_short, remove])
@pytest.mark.usefixtures("array")
def test_damaged_metadata_are_found_when_the_array_is_opened(tmp_path, damage):
    damage(tmp_path / "array" / "zarr.json")
    with pytest.raises(CorruptDataError, match="array"):
        storage.open_array(tmp_path / "array", shape=(10, 3), dtype=np.float32)


def test_a_mistake_of_the_caller_is_not_taken_for_damage(array):
    with pytest.raises(ValueError, match="OUT_OF_RANGE") as caught:
        storage.read(array, slice(0, 20))
    assert not isinstance(caught.value, InputError)


def test_new_directory_takes_a_new_or_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    assert storage.new_directory(tmp_path / "empty").is_dir()
    assert storage.new_directory(tmp_path / "deep" / "er").is_dir()


def test_new_directory_never_overwrites(tmp_path):
    (tmp_path / "kept").write_text("precious")
    with pytest.raises(InputError, match=r"output directory: found files in it, expected a new or an empty.*Choose"):
        storage.new_directory(tmp_path)
    with pytest.raises(InputError, match="found a file, expected a new or an empty directory"):
        storage.new_directory(tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "precious"


def test_new_directory_below_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Check the path and your permissions") as caught:
        storage.new_directory(tmp_path / "file" / "out")
    assert caught.value.errno == errno.ENOTDIR


def test_json_round_trip_leaves_no_other_file(tmp_path):
    storage.write_json(tmp_path / "a.json", {"τ": [1, 2.5, None]})
    storage.write_json(tmp_path / "a.json", {"τ": [3]})
    assert storage.read_json(tmp_path / "a.json") == {"τ": [3]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    storage.write_json(tmp_path / "a.json", "old")
    with pytest.raises(TypeError):
        storage.write_json(tmp_path / "a.json", object())
    assert storage.read_json(tmp_path / "a.json") == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_json_that_is_not_there_or_broken(tmp_path):
    with pytest.raises(InputError, match=r"a\.json: file: found no such file, expected .*Check the path"):
        storage.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b"{\xff")
    with pytest.raises(CorruptDataError, match=r"a\.json: content: found no JSON"):
        storage.read_json(tmp_path / "a.json")


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "manifest.json"
    storage.write_manifest(path, {"rows": 3, "softening": 0.1}, format_name="things", version=1)
    return path


def test_manifest_round_trip(manifest):
    body = storage.read_manifest(manifest, format_name="things", version=2)
    assert body == {"format": "things", "version": 1, "rows": 3, "softening": 0.1}


def test_an_altered_manifest_is_found(manifest):
    manifest.write_text(json.dumps(storage.read_json(manifest) | {"softening": 2.0}))
    with pytest.raises(CorruptDataError, match=r"manifest\.json: sha256: found .*Copy it again"):
        storage.read_manifest(manifest, format_name="things", version=1)


def test_a_manifest_of_another_format_a_newer_version_or_missing(manifest):
    with pytest.raises(InputError, match="format: found 'things', expected 'others'"):
        storage.read_manifest(manifest, format_name="others", version=1)
    with pytest.raises(InputError, match=r"version: found 1, expected at most 0\. Upgrade"):
        storage.read_manifest(manifest, format_name="things", version=0)
    manifest.unlink()
    with pytest.raises(InputError, match="found no such file, expected a finished directory of things"):
        storage.read_manifest(manifest, format_name="things", version=1)
    manifest.write_text("[]")
    with pytest.raises(InputError, match="found no format"):
        storage.read_manifest(manifest, format_name="things", version=1)


# A file size limit stands for a full disk: the operating system refuses the write in the same place.
FULL_DISK = """
import resource, signal, sys
import numpy as np
from mtbkd_jax import storage
from mtbkd_jax.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
array = storage.create_array(sys.argv[1] + "/array", shape=(9999,), dtype=np.float32, chunk_shape=(9999,))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
attempts = [
    lambda: storage.write(array, slice(0, 9999), np.ones(9999, np.float32)),
    lambda: storage.write_json(sys.argv[1] + "/long.json", "long" * 9999),
]
for attempt in attempts:
    try:
        attempt()
    except StorageError as error:
        print(error.errno, error)
"""


def test_a_full_disk_is_a_storage_error_and_leaves_no_half_a_json_file(tmp_path):
    program = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    lines = subprocess.run(program, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, ("array", "long.json"), strict=True):
        assert line.startswith(f"{errno.EFBIG} ")
        assert "Free some space or choose another disk" in line
        assert name in line
    assert os.listdir(tmp_path) == ["array"]


def test_a_directory_where_a_file_should_be_is_named(tmp_path):
    with pytest.raises(InputError, match="file: found a directory, expected a file"):
        storage.read_json(tmp_path)


def test_a_directory_is_locked_while_a_block_runs(tmp_path):
    def lock():
        with storage.locked(tmp_path):
            return True

    with storage.locked(tmp_path), pytest.raises(InputError, match="lock: found held by another process"):
        lock()
    assert lock()


def test_deep_json_is_damage_and_no_recursion_error(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(CorruptDataError, match="content: found no JSON"):
        storage.read_json(tmp_path / "deep.json")


def test_a_new_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"

    def write(content, then=None):
        with storage.new_file(path) as file:
            file.write(content)
            assert not path.exists()
            if then is not None:
                then()

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(b"half", fail)
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="output file: found something there"):
        write(b"late", lambda: path.write_bytes(b"of somebody else"))
    assert path.read_bytes() == b"of somebody else"
    path.unlink()
    write(b"whole")
    assert path.read_bytes() == b"whole"
    with pytest.raises(InputError, match="nothing is ever overwritten"):
        write(b"again")
    assert os.listdir(tmp_path) == ["file"]
