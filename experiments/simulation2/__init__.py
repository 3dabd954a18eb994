"""Simulation 2 of the paper: five overlapping Gaussians, and teachers that know only some of them."""
