"""`retrieve`: queries, measures by class, near-duplicates, outliers, the HTML report."""
