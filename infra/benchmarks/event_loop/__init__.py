"""The event-loop bench: how long the longest task on an API process's loop takes."""
