"""The recipe that makes the studio's foundation: `python -m foundation` (hours on two cores)."""
