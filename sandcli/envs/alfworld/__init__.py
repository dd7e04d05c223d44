"""ALFWorld: the games on disk, and our own engine that plays them exactly as TextWorld does, but faster."""
