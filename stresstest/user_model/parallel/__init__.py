"""A replica of the user's model that spans several devices."""
