"""Commands of segbatch as jobs of a Ray cluster, and looking after them."""
