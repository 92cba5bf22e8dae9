"""Families of generators: each file says how its checkpoints are recognised, and builds the network."""
