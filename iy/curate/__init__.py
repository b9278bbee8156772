"""From photos to a training collection: measured, filtered, grouped into persons, split, captioned, nothing dropped."""
