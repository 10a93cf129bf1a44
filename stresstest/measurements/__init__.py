"""What is measured of a population, from a fresh initialisation each: ramp, hold, fixed recipe."""
