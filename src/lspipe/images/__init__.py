"""Images of microstructures: readers of the formats that people have."""
