"""Gates: what must hold of a result, alone or beside another's, and the one verdict that everything renders."""
