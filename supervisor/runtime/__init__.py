"""What runs: VMMs, page servers, templates; and what belongs to nobody."""
