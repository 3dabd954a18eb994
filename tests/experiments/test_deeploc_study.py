"""DeepLoc's study on eighty made-up proteins: settings are given, teachers weighed by entropy, and chains short."""

import json

import numpy as np
import pytest

from experiments.deeploc import __main__ as study
from experiments.deeploc.__main__ import COLUMNS, LABEL_COUNTS, Condition, conditions
from experiments.deeploc.authors import evaluate_fold
from experiments.deeploc.data import folds, read_deeploc, read_multilabel
from experiments.deeploc.features import FEATURES
from mtbkd_jax.errors import InputError

QUICK = (
    *("--kind", "logits", "--student.hidden", "4", "--weighting", "entropy"),
    *("--settings.power", "1", "--settings.concentration", "5"),
    *("--settings.center-scale", "inf", "--settings.wide-scale", "0.5"),
    *("--settings.temperature", "1", "--settings.prediction-temperature", "1"),
    *("--sampling.num-mode-steps", "50", "--sampling.num-burn-in", "20"),
    *("--sampling.num-draws", "10", "--sampling.thinning", "1", "--sampling.num-chains", "2"),
)
NUM_PROTEINS, CLASS_NAMES = 80, ("Cytoplasm", "Nucleus")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Two compartments that every hidden unit can tell apart, two homology partitions, two teachers that know."""
    folder = tmp_path_factory.mktemp("deeploc")
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_PROTEINS) % 2
    partition = np.arange(NUM_PROTEINS) // 2 % 2
    hidden = rng.normal(size=(NUM_PROTEINS, 128)) + labels[:, None]
    sequences = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 50)) for _ in labels]
    proteins = {
        "partition": partition,
        "unirep64": hidden,
        "sequence_bytes": np.frombuffer("".join(sequences).encode(), np.uint8),
        "sequence_offsets": 50 * np.arange(NUM_PROTEINS + 1),
    }
    logits = 2.0 * np.eye(2)[labels]
    teachers = {"teacher_esm2_650m": logits, "teacher_prott5_xl": logits + rng.normal(size=logits.shape)}
    np.savez(folder / "train.npz", labels=labels, class_names=np.array(CLASS_NAMES), **proteins, **teachers)
    np.savez(folder / "multilabel_dev.npz", **proteins)
    (folder / "as_published").mkdir()
    rows = [f"P{row},{partition[row]},{sequences[row]},{labels[row]}\n" for row in range(NUM_PROTEINS)]
    text = "ACC,Partition,Sequence,Label\n" + "".join(rows)
    (folder / "as_published" / "data_our_train_sample.csv").write_text(text, encoding="utf-8")
    return folder


def run_study(monkeypatch, *options):
    monkeypatch.setattr(study, "FIT_OPTIONS", QUICK)
    monkeypatch.setattr("sys.argv", ["study", *map(str, options)])
    study.main()


def test_the_study_writes_its_table_and_figures_and_takes_runs_up_again(directory, tmp_path, monkeypatch, capsys):
    runs, out = tmp_path / "runs", tmp_path / "out"
    options = ("--data", directory, "--runs", runs, "--features", "unirep64", "--labels", "20", "--folds", "1")
    run_study(monkeypatch, *options, "--out", out)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in results["rows"]] == [
        "UniRep-64: MT-BKD, 20 labels",
        "UniRep-64: no teacher, 20 labels",
    ]
    assert results["seeds"] == [1]
    assert set(COLUMNS) <= set(results["runs"][0])
    assert results["rows"][0]["accuracy"]["mean"] > 0.7
    (pooled, _) = results["pooled"]
    # Of a single fold they are what its run says.
    assert pooled["ECE"]["mean"] == pytest.approx(results["rows"][0]["ece"]["mean"], abs=1e-6)
    assert {path.name for path in out.iterdir()} == {
        "results.json",
        "table.md",
        "deviance_by_class.png",
        "weights_by_class.png",
    }
    folder = runs / "unirep64_fold_1_20_labels_subset_0"
    with np.load(folder / "train.npz") as archive:
        assert (archive["labels"] >= 0).sum() == 20
    no_teacher = json.loads((folder / "no_teacher" / "selection.json").read_text(encoding="utf-8"))
    assert no_teacher["chosen"]["power"] == 0.0

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    run_study(monkeypatch, *options, "--out", tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before
    again = json.loads((tmp_path / "again" / "results.json").read_text(encoding="utf-8"))
    assert again["runs"] == results["runs"]
    capsys.readouterr()


def test_files_of_other_data_are_not_taken_for_those_of_this_study(directory, tmp_path):
    data = read_deeploc(directory, "unirep64")
    train, test = next(folds(data.partition))
    study._write_inputs(tmp_path, data, train, test, data.labels[train])
    study._write_inputs(tmp_path, data, train, test, data.labels[train])
    with pytest.raises(InputError, match=r"train\.npz: labels: found other values"):
        study._write_inputs(tmp_path, data, train, test, 1 - data.labels[train])


def test_runs_of_the_first_study_are_found_by_their_names_and_all_names_differ():
    assert Condition("unirep256", None, None).folder(0) == "fold_0_all"
    assert Condition("unirep256", 50, 1).folder(0) == "fold_0_subset_1"
    wanted = conditions(tuple(FEATURES), LABEL_COUNTS, 3)
    assert len(wanted) == 3 * (1 + 3 * 3)
    assert len({condition.folder(0) for condition in wanted}) == len(wanted)
    assert wanted[0] == Condition("unirep256", None, None)


@pytest.mark.parametrize("labels", ["0", "-3", "some", "1.5"])
def test_a_number_of_labels_that_is_none_is_refused(labels, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_study(monkeypatch, "--runs", "nowhere", "--labels", labels)
    capsys.readouterr()


def test_the_authors_algorithm_has_every_metric_of_the_study(directory):
    data = read_deeploc(directory, "unirep64")
    several, partition = read_multilabel(directory, "unirep64")
    train, test = next(folds(data.partition))
    scores = evaluate_fold(data, train, test, several[partition == 0], seed=0, adam_epochs=20, sgld_epochs=10)
    assert set(scores) == set(COLUMNS) - {"share_r_hat_below_1.05"}
    assert scores["accuracy"] > 0.7
    assert scores["seconds"] > 0
