"""The recipe that makes the studio's foundation: `python -m iy.studio.foundation` (hours on two cores)."""
