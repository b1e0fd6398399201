"""A compressed network in a file, without pickle."""
