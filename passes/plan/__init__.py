"""Passes that decide what runs outside of the recurrence."""
