"""How well base and stages draw people nobody trained on, as prompted: identity, alignment, appeal, copying,
diversity."""
