"""The verbs: what is asked of instances, and what a restart finds half done."""
