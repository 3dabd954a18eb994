"""The results file keeps what was measured on the same machine, and the table says what was asked for."""

from benchmarks.measure import Row
from benchmarks.results import write_results
from mtbkd_jax.storage import read_json

FAST, SLOW = Row("fast", 3.0, 2.0, "higher", 0.1, {"microseconds": 4.0}), Row("slow", 1.0, 2.0, "higher", 0.1)


def names_in(path):
    return [row["name"] for row in read_json(path)["rows"]]


def test_a_benchmark_replaces_its_own_rows_alone(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, "this one", "step", [SLOW])
    write_results(path, "this one", "prediction", [SLOW])
    write_results(path, "this one", "step", [FAST])
    assert names_in(path) == ["slow", "fast"]


def test_figures_of_another_machine_are_no_part_of_the_table(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, "this one", "step", [SLOW])
    write_results(path, "another", "prediction", [FAST])
    assert names_in(path) == ["fast"]
    assert read_json(path)["machine"] == "another"


def test_the_table_says_which_goal_was_missed(tmp_path):
    write_results(tmp_path / "results.json", "this one", "step", [FAST, SLOW])
    table = (tmp_path / "RESULTS.md").read_text()
    assert "| fast | 3 | ≥ 2 | 0.1 | microseconds 4.0 |" in table
    assert "| slow | 1 | ≥ 2 **missed** | 0.1 |  |" in table
    assert "`python -m benchmarks step`" in table
