"""Comparisons of methods on draws of simulation 1 with a few hundred labels: options, runs, and files."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.simulation1.design import DESIGN
from experiments.simulations import Simulation, simulation_draws
from experiments.study import kept, markdown_table, results_files, rows_of, study_parser, summary, write_results

NUM_LABELS = 300
NUM_INPUTS = 2000
"""Of the draw's 12,000: exact samplers see all of them at every step."""


def compare_on_draws(
    study: str,
    description: str,
    columns: Sequence[str],
    run_draw: Callable[[int, Simulation], list[dict[str, Any]]],
) -> None:
    """Parse the options, run every seed, print the rows, and write the files.

    Args:
      study: its folder.
      description: for ``--help``.
      columns: of the table.
      run_draw: ``(seed, draw) -> rows``, one for each method.
    """
    parser = study_parser(description, Path(__file__).parent.parent / study, keeps_runs=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of data, teachers and chains")
    options = parser.parse_args()
    files = results_files(options)
    runs = []
    for seed, draw in zip(options.seeds, simulation_draws(DESIGN, options.seeds), strict=True):
        small = draw.with_inputs(NUM_INPUTS).with_labels(NUM_LABELS)
        for row in kept(options.runs, f"draw_{seed}", partial(run_draw, seed, small)):
            runs.append(row)
            print(seed, row["method"], {name: round(row[name], 4) for name in columns}, flush=True)
    rows = rows_of(runs, columns)
    write_results(files, summary(study, options.seeds, rows) | {"runs": runs}, markdown_table(rows, digits=4))
