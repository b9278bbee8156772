"""Where photographs come from: the studio, or a folder. One row per photo; the unreadable stay, with the reason."""
