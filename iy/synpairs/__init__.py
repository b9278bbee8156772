"""SynPairs: photos of a person in another pose and expression, made from one photo, measured by a recogniser."""
