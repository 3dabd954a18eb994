import io

from rich.console import Console

from mtbkd_jax.progress import progress_bar


def shown(console):
    with progress_bar("Sampling", console) as report:
        report(50, 200, -123.4)
        report(200, 200, -120.0)
    return console.file.getvalue()


def test_a_terminal_shows_steps_and_log_density():
    text = shown(Console(file=io.StringIO(), force_terminal=True, width=120))
    assert "Sampling" in text
    assert "200/200" in text
    assert "log density -120.0" in text


def test_nothing_is_written_where_there_is_no_terminal():
    assert shown(Console(file=io.StringIO(), force_terminal=False)) == ""
