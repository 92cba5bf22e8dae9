"""Pages to send around."""
