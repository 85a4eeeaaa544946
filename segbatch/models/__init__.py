"""Networks, and the bundles that hold trained ones."""
