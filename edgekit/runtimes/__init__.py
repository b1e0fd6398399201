"""One file a runtime: convert a network to what it executes."""
