"""The records on disk, and the view of them that is told."""
