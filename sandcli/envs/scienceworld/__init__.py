"""ScienceWorld: tasks, the Java runtime, and episodes that can fork."""
