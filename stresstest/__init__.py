"""stresstest: where does training break, and how sure is that? See `stresstest --help`."""
