"""What the user reads: terminal, HTML and JSON from one result."""
