"""Stage 4 into the model registry: a version that loads and serves anywhere, promoted when a stated gate lets it."""
