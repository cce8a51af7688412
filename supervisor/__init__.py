"""The process that owns the microVMs, their templates and their page servers."""
