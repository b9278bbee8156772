"""The services of a shared installation: in containers (compose.yaml) or as plain processes (services.py)."""
