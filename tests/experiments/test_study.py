import json

import numpy as np
import pytest

from experiments.study import kept, markdown_table, rows_of, summary, titled

RUNS = [
    {"method": "student", "accuracy": 0.5, "negative_log_likelihood": 1.0},
    {"method": "student", "accuracy": 0.7, "negative_log_likelihood": 2.0},
    {"method": "teacher", "accuracy": 0.9, "negative_log_likelihood": None},
    {"method": "teacher", "accuracy": 0.9, "negative_log_likelihood": None},
]


@pytest.fixture
def rows():
    return rows_of(RUNS, ("accuracy", "negative_log_likelihood"))


def test_a_summary_has_mean_and_sd_of_what_there_is(rows, monkeypatch):
    monkeypatch.setattr("sys.argv", ["study", "--seeds", "0", "1", "--out", "somewhere", "--overwrite"])
    found = json.loads(json.dumps(summary("digits", [0, 1], rows)))
    assert found["command"] == "python -m experiments.digits --seeds 0 1"
    student, teacher = found["rows"]
    assert student["method"] == "student"
    assert student["nll"] == {"mean": 1.5, "sd": pytest.approx(np.sqrt(0.5))}
    assert teacher == {"method": "teacher", "accuracy": {"mean": 0.9, "sd": 0.0}}


def test_a_table_leaves_out_what_there_is_not(rows):
    lines = markdown_table(titled(rows), digits=2).splitlines()
    assert lines[0] == "| | accuracy | NLL |"
    assert lines[2] == "| student | 0.60 ± 0.14 | 1.50 ± 0.71 |"
    assert lines[3] == "| teacher | 0.90 ± 0.00 |  |"


def test_what_is_kept_is_not_computed_again(tmp_path):
    asked = []

    def compute():
        asked.append(1)
        return [{"method": "student", "accuracy": 0.1 + 0.2}]

    runs = [kept(folder, "seed_0", compute) for folder in (tmp_path / "runs", tmp_path / "runs", None)]
    assert runs == [[{"method": "student", "accuracy": 0.1 + 0.2}]] * 3  # to the bit
    assert len(asked) == 2  # once for the folder, and once where there is none
