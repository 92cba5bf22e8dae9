"""The training and the evaluation of the embedded networks, on painted scenes."""
