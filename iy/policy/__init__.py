"""Whose face may be drawn: lists of people who allowed it, and of people who must never be, known by their faces."""
