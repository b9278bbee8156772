"""A local page to play with the model: photographs in, pictures out, two models side by side."""
