"""Files of others, read as data: nothing in them is executed."""
