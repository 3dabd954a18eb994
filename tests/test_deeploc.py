"""Import of the authors' repository: what is read and written, and clones that are refused."""

import csv
from pathlib import Path

import numpy as np
import pytest

from mtbkd_jax.aligned_teachers import align_teachers, open_teachers
from mtbkd_jax.cli import main
from mtbkd_jax.composition import composition_features
from mtbkd_jax.data import read_dataset, read_inputs
from mtbkd_jax.deeploc import CLASS_NAMES, TEACHER_FILES, TEST_FILE, TRAIN_FILE, import_deeploc, read_clone
from mtbkd_jax.errors import InputError

SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
PUBLISHED = SHARED_DATA / "deeploc" / "as_published"
HEADER = f"ACC,Kingdom,Partition,Membrane,{','.join(CLASS_NAMES)},Sequence,Label\n"
SEQUENCES = ["MKRLSKL", "MXUAKDEL", "MKKLLL"]
LABELS = [9, 6, 1]


def write_clone(folder):
    """Three proteins in the layout of the authors' repository."""
    (folder / "data").mkdir(parents=True)
    (folder / "teacher_pred_prob").mkdir()
    rows = [
        f"P{row},Metazoa,{row},0,{','.join('1' if c == label else '0' for c in range(10))},{sequence},{label}\n"
        for row, (sequence, label) in enumerate(zip(SEQUENCES, LABELS, strict=True))
    ]
    (folder / "data" / TRAIN_FILE).write_text(HEADER + "".join(rows), encoding="utf-8")
    for teacher, name in enumerate(TEACHER_FILES.values()):
        logits = np.arange(30).reshape(3, 10) - 20.5 + teacher
        lines = [",".join(map(str, range(10))), *(",".join(map(str, row)) for row in logits)]
        (folder / "teacher_pred_prob" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def clone(tmp_path):
    return write_clone(tmp_path / "clone")


def test_a_clone_becomes_what_fit_takes(clone, tmp_path):
    out = tmp_path / "deeploc"
    written = import_deeploc(clone, out)
    assert written == (out / "teachers" / "esm2_650m", out / "teachers" / "prott5_xl", out / "train.npz")
    dataset = read_dataset(out / "train.npz")
    np.testing.assert_array_equal(dataset.inputs, composition_features(SEQUENCES))
    assert dataset.labels.tolist() == LABELS
    assert dataset.ids.tolist() == ["P0", "P1", "P2"]
    assert dataset.class_names == CLASS_NAMES
    with np.load(out / "train.npz", allow_pickle=False) as archive:
        assert archive["groups"].tolist() == [0, 1, 2]
        assert archive["feature_names"].shape == (dataset.inputs.shape[1],)
    teachers = open_teachers([str(path) for path in written[:2]])
    aligned = align_teachers(teachers, ids=dataset.ids[::-1], class_names=dataset.class_names)
    assert aligned.names == ("esm2_650m", "prott5_xl")
    np.testing.assert_array_equal(aligned.logits[::-1, 0], np.arange(30).reshape(3, 10) - 20.5)
    np.testing.assert_array_equal(aligned.logits[:, 1] - aligned.logits[:, 0], 1.0)
    assert TEACHER_FILES["prott5_xl"] in teachers[1].sources[0]


def test_test_proteins_and_those_of_several_compartments_are_taken_where_they_are(clone, tmp_path):
    (clone / "data" / TEST_FILE).write_text("Sequence,Label\nMKV,3\nMA,0\n", encoding="utf-8")
    (clone / "data" / "data_MuLabel_sub.csv").write_text("Label,Sequence\n,MW\n", encoding="utf-8")
    import_deeploc(clone, tmp_path / "out")
    test = read_dataset(tmp_path / "out" / "test.npz")
    np.testing.assert_array_equal(test.inputs, composition_features(["MKV", "MA"]))
    assert test.labels.tolist() == [3, 0]
    np.testing.assert_array_equal(read_inputs(tmp_path / "out" / "multilabel.npz"), composition_features(["MW"]))


def test_the_files_may_lie_in_the_directory_itself(clone, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in clone.rglob("*.csv"):
        (flat / path.name).write_bytes(path.read_bytes())
    assert read_clone(flat).sequences == read_clone(clone).sequences == tuple(SEQUENCES)


def test_a_teacher_with_ids_is_matched_by_them(clone):
    path = clone / "teacher_pred_prob" / TEACHER_FILES["esm2_650m"]
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    numbered = [f"P{row},{cells}" for row, cells in enumerate(rows)]
    path.write_text("\n".join([f"id,{header}", *reversed(numbered)]), encoding="utf-8")
    np.testing.assert_array_equal(read_clone(clone).teacher_logits["esm2_650m"][:, 0], [-20.5, -10.5, -0.5])
    path.write_text("\n".join([f"id,{header}", *numbered]).replace("P2", "Q2"), encoding="utf-8")
    with pytest.raises(InputError, match="no outputs for 1 of 3 examples: 'P2'"):
        read_clone(clone)


ESM = f"teacher_pred_prob/{TEACHER_FILES['esm2_650m']}"
TRAIN = f"data/{TRAIN_FILE}"


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        pytest.param(TRAIN, "ACC,", "Accession,", "ACC: found only the columns", id="no ids"),
        pytest.param(TRAIN, ",Sequence", ",Residues", "Sequence: found only the columns", id="no sequences"),
        pytest.param(TRAIN, ",Plastid", ",Chloroplast", "Plastid: found only the columns", id="no compartment"),
        pytest.param(TRAIN, HEADER, "", "ACC: found only the columns", id="no header"),
        pytest.param(TRAIN, "P2", "P1", "ACC: found 1 more than once: 'P1'", id="an id twice"),
        pytest.param(TRAIN, "P2", "", "ACC: found 1 missing", id="an id missing"),
        pytest.param(TRAIN, "SKL,9", "SKL,10", "Label: found 10 in row 0", id="a label out of range"),
        pytest.param(TRAIN, "SKL,9", "SKL,9.0", "Label of row 0: found '9.0'", id="a label with decimals"),
        pytest.param(TRAIN, "SKL,9", "SKL," + "9" * 99, "Label of row 0", id="a label beyond all integers"),
        pytest.param(TRAIN, "SKL,9", "SKL,-1", "Label of row 0: found '-1'", id="a negative label"),
        pytest.param(TRAIN, "SKL,9", "SKL,8", "compartments of row 0.*Golgi apparatus alone", id="another label"),
        pytest.param(TRAIN, "Metazoa,1", "Metazoa,x", "Partition of row 1: found 'x'", id="no partition"),
        pytest.param(TRAIN, "MXUA", "MX1A", "sequence 1: found the letter '1' at place 3", id="an unknown residue"),
        pytest.param(TRAIN, "MKKLLL", "", "sequence 2: found no residue", id="an empty sequence"),
        pytest.param(TRAIN, "MKKLLL", "MKK,LLL", "line 4: found 17 cells", id="a cell too many"),
        pytest.param(ESM, "8.5\n", "8.5\n" + ",".join("0" * 10) + "\n", "outputs: found 4 rows", id="a row too many"),
        pytest.param(ESM, "-20.5", "high", "could not convert string to float", id="words for logits"),
        pytest.param(ESM, "-20.5", "nan", "NaN", id="no number for a logit"),
        pytest.param(ESM, ",9\n", "\n", "10 cells", id="a class without a name"),
        pytest.param(ESM, "0,1,2,3", "a,b,c,d", "header: found", id="other classes"),
    ],
)
def test_a_clone_that_is_not_what_it_must_be_is_refused_and_nothing_is_written(
    clone, tmp_path, file, before, after, message
):
    content = (clone / file).read_text(encoding="utf-8")
    assert before in content
    (clone / file).write_text(content.replace(before, after), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        import_deeploc(clone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [TRAIN_FILE, *TEACHER_FILES.values()])
def test_a_missing_file_is_named(clone, name):
    next(clone.rglob(name)).unlink()
    with pytest.raises(InputError, match=rf"clone: {name}: found no such file"):
        read_clone(clone)


def test_probabilities_are_not_taken_for_logits(clone):
    lines = [",".join(map(str, range(10))), *([",".join(["0.1"] * 10)] * 3)]
    (clone / ESM).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="as probabilities do"):
        read_clone(clone)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"PK\x03\x04"])
def test_what_is_no_csv_is_refused(clone, content):
    (clone / TRAIN).write_bytes(content)
    with pytest.raises(InputError, match=TRAIN_FILE):
        read_clone(clone)


def test_the_command_writes_once_and_never_over_it(clone, tmp_path, capsys):
    out = tmp_path / "out"
    main(["import-deeploc", str(clone), "--out", str(out)])
    assert f"Wrote {out / 'train.npz'}" in capsys.readouterr().out
    before = (out / "train.npz").read_bytes()
    with pytest.raises(SystemExit) as caught:
        main(["import-deeploc", str(clone), "--out", str(out)])
    assert caught.value.code == 2
    assert "nothing is ever overwritten" in capsys.readouterr().err
    assert (out / "train.npz").read_bytes() == before


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the development data are not at {SHARED_DATA}")
def test_the_published_files_hold_the_proteins_and_teachers_that_are_described(tmp_path):
    clone = read_clone(PUBLISHED)
    with np.load(PUBLISHED.parent / "train.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(clone.labels, archive["labels"])
        np.testing.assert_array_equal(clone.partition, archive["partition"])
        assert tuple(archive["class_names"].tolist()) == CLASS_NAMES
        assert "".join(clone.sequences) == archive["sequence_bytes"].tobytes().decode("ascii")
        for name, logits in clone.teacher_logits.items():
            np.testing.assert_allclose(logits, archive[f"teacher_{name}"], rtol=1e-6)
    with (PUBLISHED / TRAIN_FILE).open(newline="", encoding="utf-8") as file:
        assert clone.ids.tolist() == [row["ACC"] for row in csv.DictReader(file)]
    import_deeploc(PUBLISHED, tmp_path / "out")
    dataset = read_dataset(tmp_path / "out" / "train.npz")
    assert dataset.inputs.shape == (2_500, 200)
    teachers = open_teachers([str(tmp_path / "out" / "teachers" / name) for name in TEACHER_FILES])
    aligned = align_teachers(teachers, ids=dataset.ids, class_names=dataset.class_names)
    accuracy = (aligned.logits.argmax(-1) == dataset.labels[:, None]).mean(0)
    np.testing.assert_allclose(accuracy, [0.812, 0.830], atol=5e-4)
