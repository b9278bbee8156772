"""Stage 4 into the model registry: a version that can be loaded and served anywhere, promoted when a stated gate lets it."""
