"""A layer around a recurrence: its plan, what its weights begin with, and which cell of torch it is."""
