"""How two things differ: layers, units, generators, and sets of images."""
