"""Pictures by the thousand: `iy generate --table jobs.csv`, a row a picture."""
