"""ALFWorld, its games on disk, and an engine of our own that plays them as TextWorld does, only faster."""
