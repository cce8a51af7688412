"""The driver of VMMs: Firecracker, or the embedded VMM that speaks the same API."""
