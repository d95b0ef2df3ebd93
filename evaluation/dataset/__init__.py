"""Making AbC-type datasets: customize a generator toward exemplars, and let it synthesize."""
