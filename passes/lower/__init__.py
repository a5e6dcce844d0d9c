"""graph -> graph, for a backend's sake: what is the same up to rounding, and sooner computed as the backend computes it."""
