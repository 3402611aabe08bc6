"""Attribution: which part of the input, or of a layer, makes a network respond."""
