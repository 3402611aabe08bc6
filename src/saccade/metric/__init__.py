"""Deep metric learning: losses, heads, retrieval metrics, data sets and recipes."""
