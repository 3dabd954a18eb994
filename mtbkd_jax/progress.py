"""A progress bar for sampling: rate, log density and time left."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from mtbkd_jax.sampling import ChunkReport, Progress


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} steps/s")


@contextmanager
def progress_bar(description: str, console: Console | None = None) -> Iterator[Progress]:
    """Show a bar while the block runs; silent where the output is not a terminal.

    Args:
      description: what is being done, in a word or two.
      console: where to draw; None is the standard error.

    Yields:
      What ``sample_chains`` takes as its ``progress``.
    """
    console = Console(stderr=True) if console is None else console
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TextColumn("log density {task.fields[log_density]:,.1f}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None, log_density=float("nan"))

        def show(report: ChunkReport) -> None:
            bar.update(task, completed=report.steps_done, total=report.num_steps, log_density=report.mean_log_density)

        yield show
