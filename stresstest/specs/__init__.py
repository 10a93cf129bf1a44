"""Settings: frozen, checked when built, with one place for each default and its help text."""
