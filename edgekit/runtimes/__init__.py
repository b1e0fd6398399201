"""One file a runtime: from the float network to what it executes. `convert.py` is the way in."""
