"""edgekit takes a trained network and a device, and gives back a bundle that runs there inside its budget."""

__version__ = "0.1.0"
