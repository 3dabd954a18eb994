"""CIFAR-10 with three residual networks as teachers."""
