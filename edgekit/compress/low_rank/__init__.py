"""Layers as products of smaller ones: one file a decomposition, one for ranks, one for what the data says."""
