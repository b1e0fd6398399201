"""What the user brings: a model and, as far as there is any, data to calibrate, train and score it."""
