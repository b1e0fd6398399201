"""Bundles: the directory (or one archive of it) that goes to the device."""
