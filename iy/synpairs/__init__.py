"""SynPairs: photos of a person in another pose and expression, made from one photo, judged by a recogniser (METHOD
§1)."""
