import io

import numpy as np
from rich.console import Console

from mtbkd_jax.progress import progress_bar, rows_bar
from mtbkd_jax.samplers import SamplerInfo
from mtbkd_jax.sampling import ChunkReport


def report(steps_done, log_density):
    info = SamplerInfo(np.full((2, 1), log_density), np.ones((2, 1)), np.zeros((2, 1), bool))
    return ChunkReport(steps_done, 200, 1, info, info, np.full(2, -1))


def shown(console):
    with progress_bar("Sampling", console) as show:
        show(report(50, -123.4))
        show(report(200, -120.0))
    return console.file.getvalue()


def test_a_terminal_shows_steps_and_log_density():
    text = shown(Console(file=io.StringIO(), force_terminal=True, width=120))
    assert "Sampling" in text
    assert "200/200" in text
    assert "log density -120.0" in text


def test_nothing_is_written_where_there_is_no_terminal():
    assert shown(Console(file=io.StringIO(), force_terminal=False)) == ""


def test_a_terminal_shows_the_rows_of_each_teacher():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with rows_bar(1000, console) as show:
        show("[big]", 0)
        show("[big]", 1000)
        show("small", 400)
    text = console.file.getvalue()
    assert "[big]" in text
    assert "1000/1000" in text
    assert "400/1000" in text
