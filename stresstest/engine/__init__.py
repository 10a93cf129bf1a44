"""How a population is stepped, and when a replica has broken."""
