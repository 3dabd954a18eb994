"""Progress bars: rate and time left, and for sampling the log density; silent where the output is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from mtbkd_jax.sampling import ChunkReport, Progress


class _RateColumn(ProgressColumn):
    def __init__(self, of: str):
        super().__init__()
        self._of = of

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} {self._of}/s")


@contextmanager
def progress_bar(description: str, console: Console | None = None) -> Iterator[Progress]:
    """Show a bar while the block runs; silent where the output is not a terminal.

    Args:
      description: what is being done, in a word or two.
      console: where to draw; None is the standard error.

    Yields:
      What ``sample_chains`` takes as its ``progress``.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn("steps"),
        TextColumn("log density {task.fields[log_density]:,.1f}"),
        TimeRemainingColumn(),
    )
    with _bar(columns, console) as bar:
        task = bar.add_task(description, total=None, log_density=float("nan"))

        def show(report: ChunkReport) -> None:
            bar.update(task, completed=report.steps_done, total=report.num_steps, log_density=report.mean_log_density)

        yield show


@contextmanager
def rows_bar(num_rows: int, console: Console | None = None) -> Iterator[Callable[[str, int], None]]:
    """Show a bar for each teacher while the block runs.

    Args:
      num_rows: that each teacher is asked about.
      console: where to draw; None is the standard error.

    Yields:
      What ``adapters.teach`` takes as its ``progress``: ``(teacher, rows done) -> None``.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn("rows"),
        TimeRemainingColumn(),
    )
    with _bar(columns, console) as bar:
        tasks: dict[str, TaskID] = {}

        def show(teacher: str, num_done: int) -> None:
            if teacher not in tasks:
                # What an interrupted run had done counts as done, and not towards the rate.
                tasks[teacher] = bar.add_task(teacher, total=num_rows, completed=num_done)
            bar.update(tasks[teacher], completed=num_done)

        yield show


def _bar(columns: tuple[ProgressColumn, ...], console: Console | None) -> Bar:
    console = Console(stderr=True) if console is None else console
    return Bar(*columns, console=console, disable=not console.is_terminal)
