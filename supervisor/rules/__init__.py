"""States, verbs, locks and capacity. Pure: values in, values out."""
