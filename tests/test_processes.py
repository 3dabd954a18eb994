import jax
import pytest

from mtbkd_jax.errors import InputError
from mtbkd_jax.processes import Processes, join_processes


def test_a_process_that_is_alone_joins_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("it joined somebody"))
    join_processes(Processes())


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        (Processes(coordinator="localhost:1"), "coordinator: found cluster False"),
        (Processes(num_processes=2, process_id=0), "coordinator: found"),
        (Processes(cluster=True, coordinator="localhost:1", num_processes=2, process_id=0), "a cluster alone"),
        (Processes(cluster=True, process_id=0), "a cluster alone"),
        (Processes(coordinator="localhost:1", num_processes=2, process_id=2), "process_id: found 2, expected 0 to 1"),
        (Processes(coordinator="localhost:1", num_processes=0, process_id=0), "num_processes"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(processes, message):
    with pytest.raises(InputError, match=message):
        join_processes(processes)


def test_what_jax_says_of_a_cluster_that_is_not_there_is_an_error_of_ours(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no cluster\nand a long story")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(InputError, match="found no cluster, expected"):
        join_processes(Processes(cluster=True))
