"""Video action recognition: backbones, drop-in motion blocks, data sets and recipes."""
