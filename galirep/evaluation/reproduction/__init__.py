"""Tables of results as data: rows, columns, claims and budgets; a runner that trains and measures what is missing."""
