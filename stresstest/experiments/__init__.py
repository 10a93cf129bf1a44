"""Which question is asked: plan the cells, train them, reduce the records to a result."""
