"""What is done to a capture before training: weight volume, template, checks."""
