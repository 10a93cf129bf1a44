"""Scenario files: their reader, the grammars of thresholds and claims, and those that come with the package."""
