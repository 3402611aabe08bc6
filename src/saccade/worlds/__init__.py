"""Procedural data with full ground truth: each sample is a pure function of (seed, split, index)."""
