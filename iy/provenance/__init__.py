"""Pictures that say, in signed words that machines read, that a model drew them; and what a picture says."""
