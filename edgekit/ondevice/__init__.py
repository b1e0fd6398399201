"""What goes into a bundle and runs on the device: stdlib, numpy and one runtime; imports nothing of edgekit.

Every file runs on Python 3.8 too, and no file imports another: `run.py` loads the others by their path, so
that a bundle works from any folder and two bundles can live in one process. edgekit itself imports the very
same modules.
"""
