"""Decoding, sampling, layouts, loading; nothing downloads unasked."""
