"""Your teachers, your student: a ranking with its uncertainty."""
