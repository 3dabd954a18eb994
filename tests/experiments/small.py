"""Draws of a simulation with fewer inputs, for studies made small."""

from experiments.simulation1.design import DESIGN
from experiments.simulations import Simulation, simulation_draws


def small_draw(num_inputs: int) -> Simulation:
    """Simulation 1 with 300 labels and this many inputs."""
    (draw,) = simulation_draws(DESIGN, [5])
    return draw.with_inputs(num_inputs).with_labels(300)
