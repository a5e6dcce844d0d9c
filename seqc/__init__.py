"""seqc: write the recurrence, get the kernel."""
