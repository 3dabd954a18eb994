"""What the project exists for, timed. Every benchmark is a module that anyone can run."""
