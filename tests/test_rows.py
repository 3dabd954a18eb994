import struct
import zipfile

import numpy as np
import pytest

from mtbkd_jax.data import Standardizer, open_dataset, read_dataset
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.rows import MappedRows, blocks, check_finite_rows, open_rows

ARRAY = np.random.default_rng(0).normal(size=(50, 3, 2)).astype(np.float32)


@pytest.fixture(params=["npy", "npz"])
def file(request, tmp_path):
    """A file with the array, and the arguments that open it."""
    path = tmp_path / f"data.{request.param}"
    if request.param == "npy":
        np.save(path, ARRAY)
        return (path,)
    np.savez(path, labels=np.arange(50), inputs=ARRAY, more=np.ones(7))
    return path, "inputs"


@pytest.mark.parametrize("bytes_mapped", [1, 100, 1 << 20])
def test_rows_are_those_of_the_array_in_any_order(file, bytes_mapped, monkeypatch):
    monkeypatch.setattr("mtbkd_jax.rows._BYTES_MAPPED", bytes_mapped)
    rows = open_rows(*file)
    assert (rows.shape, rows.dtype) == (ARRAY.shape, ARRAY.dtype)
    for index in (np.array([49, 0, 7, 7, 3]), np.arange(0), slice(10, 20), slice(None), slice(45, 99)):
        np.testing.assert_array_equal(rows[index], ARRAY[index])


def test_a_file_that_was_cut_is_refused(file):
    content = file[0].read_bytes()
    for length in (0, 5, 40, 100, len(content) // 2, len(content) - 1):
        file[0].write_bytes(content[:length])
        with pytest.raises(CorruptDataError):
            open_rows(*file)


def test_a_file_that_has_grown_is_refused_if_it_is_no_archive(tmp_path):
    np.save(tmp_path / "data.npy", ARRAY)
    with open(tmp_path / "data.npy", "ab") as file:
        file.write(b"more")
    with pytest.raises(CorruptDataError, match=r"1204 bytes for an array .* expected 1200 bytes"):
        open_rows(tmp_path / "data.npy")


def archive_of(member, path, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("inputs.npy", member)
    return path


def npy_header(shape, descr="<f4", order=False):
    text = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "member",
    [
        npy_header((10**9, 10**9)) + bytes(100),  # more than the member has, or any memory
        npy_header((5, 5)) + bytes(101),
        npy_header((2**40, 2**40, 2**40)),  # a size beyond 64 bits
        npy_header((-5, 5)) + bytes(100),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"something else",
        b"",
    ],
)
def test_headers_that_lie_are_refused(member, tmp_path):
    with pytest.raises(InputError):  # CorruptDataError is one
        open_rows(archive_of(member, tmp_path / "data.npz"), "inputs")


@pytest.mark.parametrize(
    "array", [np.array([{}, {}]), np.array(["a", "b"]), np.asfortranarray(np.ones((4, 3))), np.array(1.0)]
)
def test_what_is_no_array_of_numbers_in_c_order_is_refused(array, tmp_path):
    np.savez(tmp_path / "data.npz", inputs=array)
    with pytest.raises(InputError, match="expected an array of numbers in C order"):
        open_rows(tmp_path / "data.npz", "inputs")


def test_a_compressed_field_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", inputs=ARRAY)
    with pytest.raises(InputError, match=r"a compressed field, expected one that is not.*numpy.savez"):
        open_rows(tmp_path / "data.npz", "inputs")


def test_a_field_that_is_not_there_or_twice_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", inputs=ARRAY)
    with pytest.raises(InputError, match="other: found the fields inputs"):
        open_rows(tmp_path / "data.npz", "other")
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("inputs.npy", npy_header((1, 1)) + bytes(4))
    with pytest.raises(InputError, match="a field of that name, once"):
        open_rows(tmp_path / "data.npz", "inputs")


def test_a_directory_that_points_elsewhere_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, inputs=ARRAY)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for field, value in ((20, 10**6), (24, 10**6), (42, 5)):  # compressed size, size, offset of the member
        altered = content.copy()
        altered[directory + field : directory + field + 4] = struct.pack("<I", value)
        path.write_bytes(altered)
        with pytest.raises(CorruptDataError):
            open_rows(path, "inputs")


def test_rows_can_be_computed_from_others(tmp_path):
    np.save(tmp_path / "data.npy", ARRAY)
    rows = MappedRows(open_rows(tmp_path / "data.npy"), lambda block: block[:, 0] * 2, (2,))
    assert rows.shape == (50, 2)
    np.testing.assert_array_equal(rows[np.array([3, 1])], ARRAY[[3, 1], 0] * 2)


def test_blocks_are_all_rows_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("mtbkd_jax.rows.ROWS_AT_A_TIME", 20)
    found = list(blocks(ARRAY))
    assert [(start, len(block)) for start, block in found] == [(0, 20), (20, 20), (40, 10)]
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), ARRAY)
    altered = ARRAY.copy()
    altered[45] = np.inf
    with pytest.raises(InputError, match=r"inputs from row 40: found an infinite number .* in row 5"):
        check_finite_rows(altered, "data", "inputs")
    with pytest.raises(InputError, match="inputs from row 40"):
        Standardizer.fit_rows(altered, "data", "inputs")


def test_a_standardizer_of_rows_is_that_of_the_array(monkeypatch):
    monkeypatch.setattr("mtbkd_jax.rows.ROWS_AT_A_TIME", 20)
    array = ARRAY.copy()
    array[:, 0] = 7.0
    whole, by_rows = Standardizer.fit(array), Standardizer.fit_rows(array, "data", "inputs")
    np.testing.assert_allclose(by_rows.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(by_rows.scale, whole.scale, rtol=1e-6)
    assert (by_rows.scale[0] == 1).all()


def test_a_data_set_on_the_disk_is_the_one_in_memory(tmp_path):
    np.savez(tmp_path / "data.npz", inputs=ARRAY, labels=np.arange(50) % 3 - 1, groups=np.arange(50) // 2)
    whole, on_disk = read_dataset(tmp_path / "data.npz"), open_dataset(tmp_path / "data.npz")
    for name in ("ids", "labels", "groups"):
        np.testing.assert_array_equal(getattr(on_disk, name), getattr(whole, name))
    np.testing.assert_array_equal(on_disk.inputs[:], whole.inputs)
    np.savez(tmp_path / "flat.npz", inputs=np.ones(50), labels=np.arange(50) % 3 - 1)
    with pytest.raises(InputError, match=r"an array of shape \(50,\)"):
        open_dataset(tmp_path / "flat.npz")
