"""Growing sizes of one model: the path along which its settings grow."""
