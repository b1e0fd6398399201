"""What goes into a bundle and runs on the device: stdlib, numpy and one runtime; imports nothing of edgekit.

`run.py` is the program, `runner/` its parts. Every file runs on Python 3.8 too, and no file imports another:
`run.py` loads the parts by their path, so that a bundle works from any folder and two bundles can live in one
process. edgekit itself runs and imports these very files, never those of a bundle that it was given.
"""
