"""`iy rehearse`: the whole run at its real sizes with random weights, before anybody rents GPUs for it."""
