"""The ways of quantizing, one file `NAME_ways.py` a runtime, and what they share."""
