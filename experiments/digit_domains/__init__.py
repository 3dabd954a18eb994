"""Digits of several domains, with a convolutional network as the expert of each."""
