"""A bundle as what a system installs: a container image, a Debian package, a Python wheel."""
