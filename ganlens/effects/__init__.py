"""What units cause: switched off, switched on, here or there, alone or in sets."""
