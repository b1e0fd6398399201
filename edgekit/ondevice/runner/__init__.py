"""The parts of `run.py`, which loads each by its path."""
