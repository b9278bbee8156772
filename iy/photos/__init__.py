"""Where photographs come from: the studio, or a folder. One row per photo; what cannot be read stays, with the reason."""
