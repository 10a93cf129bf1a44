"""What is trained: the wiring table of norm variants, and models with a replica axis."""
