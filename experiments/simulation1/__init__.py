"""Simulation 1 of the paper: two classes in the plane, and teachers that know only their own third of it."""
