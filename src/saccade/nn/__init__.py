"""Layers, backbones and shared losses that several domains use."""
