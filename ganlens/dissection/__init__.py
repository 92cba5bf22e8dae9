"""Which concept each unit of a layer matches: one pass over many images, and what it found."""
