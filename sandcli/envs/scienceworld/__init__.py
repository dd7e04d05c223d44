"""ScienceWorld, its Java runtime, and episodes that fork."""
