"""The job behind ``mtbkd report``: from directories of runs to a file."""

from typing import TYPE_CHECKING

from rich.console import Console

from mtbkd_jax import storage
from mtbkd_jax.report.page import report_page

if TYPE_CHECKING:
    from mtbkd_jax.cli import Report


def run_report(config: "Report") -> None:
    """Write the report of some runs."""
    if not config.overwrite:
        storage.check_new_file(config.out)  # now, and not only after the work
    page = report_page(config.runs, data=config.data)
    with storage.translated_errors(config.out):
        config.out.parent.mkdir(parents=True, exist_ok=True)
    if config.overwrite:
        storage.write_text(config.out, page)
    else:
        with storage.new_file(config.out) as file:
            file.write(page.encode())
    size = config.out.stat().st_size / 1e6
    Console().print(f"Wrote {config.out}: {size:.1f} MB, to be opened in a browser", soft_wrap=True)
