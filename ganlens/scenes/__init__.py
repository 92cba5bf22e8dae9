"""The painter of procedural scenes with exact labels, and the training of the embedded networks on them."""
