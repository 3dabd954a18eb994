"""The digits over several seeds."""
