"""What can be done, each as one object: its key, guard, question, form, words and requests."""
