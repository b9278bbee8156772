"""Select: the high-quality photos and pairs that stages 3 and 4 train on, ranked by machine, decided by people."""
