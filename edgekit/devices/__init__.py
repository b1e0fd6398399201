"""Devices: the places where a bundle can run."""
