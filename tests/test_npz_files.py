"""NPZ files that were altered on purpose: refused before memory is taken, and by the documented error alone."""

import io
import zipfile

import numpy as np
import pytest

from mtbkd_jax.adapters import read_questions
from mtbkd_jax.errors import CorruptDataError, InputError
from mtbkd_jax.npz_files import read_npz


@pytest.fixture
def save(tmp_path):
    """Save bytes as a field of an archive whose checksums are right."""

    def save(member, compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / "data.npz", "w", compression) as archive:
            archive.writestr("inputs.npy", member)
        return tmp_path / "data.npz"

    return save


def npy(header, content=b""):
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + content


def header(descr="'<f4'", is_fortran="False", shape="(2, 3)"):
    return f"{{'descr': {descr}, 'fortran_order': {is_fortran}, 'shape': {shape}}}"


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
        np.array(3),
        np.zeros((0, 5)),
        np.array(["é", "longer"]),
        np.array([b"a", b""]),
        np.zeros(3, "U0"),
        np.arange(3, dtype=">i4"),
    ],
)
def test_arrays_come_back_as_they_were(tmp_path, savez, array):
    savez(tmp_path / "data.npz", inputs=array)
    found = read_npz(tmp_path / "data.npz", required=["inputs"])["inputs"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(npy("{'descr': ("), id="a header that ends early"),  # a TokenError of Python
        pytest.param(npy("(" * 5000), id="a deep header"),
        pytest.param(npy(header(r"'\\d'")), id="an odd escape"),
        pytest.param(npy(header(shape="(-1, 3)")), id="a negative shape"),
        pytest.param(npy(header(shape=f"({2**70}, 3)")), id="a shape beyond all integers"),
        pytest.param(npy(header(shape="(1000000, 1000000)")), id="a huge shape"),
        pytest.param(npy(header("'<U100000000'")), id="a huge type"),
        pytest.param(npy(header("('<f4', (10,))"), bytes(24)), id="arrays as elements"),
        pytest.param(npy(header(), bytes(23)), id="a byte short"),
        pytest.param(npy(header(), bytes(25)), id="a byte long"),
        pytest.param(npy(header("'<q9'"), bytes(24)), id="no type"),
        pytest.param(b"\x93NUMPY\x09\0" + npy(header())[8:], id="another version"),
        pytest.param(b"\x93NUM", id="half a magic number"),
        pytest.param(b"bytes that are no array", id="no array"),  # were handed on as they are
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_header_that_was_altered_is_damage(save, member):
    path = save(member)
    with pytest.raises(CorruptDataError, match=r"data\.npz: inputs: found .*Copy it again"):
        read_npz(path, required=["inputs"])
    with pytest.raises(CorruptDataError):
        read_questions(path)


def test_python_objects_are_never_unpickled(save):
    with pytest.raises(InputError, match="inputs: found Python objects"):
        read_npz(save(npy(header("'|O'"))), required=["inputs"])


def test_what_only_begins_like_an_archive_is_damage(tmp_path):
    (tmp_path / "data.npz").write_bytes(b"PKxx" + bytes(100))
    with pytest.raises(CorruptDataError, match="archive: found damage"):
        read_npz(tmp_path / "data.npz")


def test_a_directory_that_points_before_the_file_is_damage(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, inputs=np.zeros(3))
    content = bytearray(buffer.getvalue())
    end = content.rindex(b"PK\5\6")
    content[end + 12 : end + 16] = (2**31).to_bytes(4, "little")  # the length of the directory
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(CorruptDataError, match="archive: found damage"):
        read_npz(tmp_path / "data.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(save, compression):
    with pytest.raises(InputError, match="another compression, or encryption"):
        read_npz(save(npy(header(), bytes(24)), compression), required=["inputs"])


def test_a_small_archive_cannot_fill_the_memory(save):
    path = save(npy(header("'|u1'", shape=f"({2**29},)"), bytes(2**29)), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    with pytest.raises(InputError, match="inputs: found 536,870,912 bytes that are stored as"):
        read_npz(path, required=["inputs"])


def test_numbers_that_stand_for_no_letter_are_no_text(tmp_path):
    for number in (0x110000, 0xD800):
        ids = np.array([number, 0x41], "<u4").view("<U1")
        np.savez(tmp_path / "data.npz", inputs=np.ones((2, 1)), ids=ids)
        with pytest.raises(InputError, match="ids: found numbers that stand for no letter"):
            read_questions(tmp_path / "data.npz")
