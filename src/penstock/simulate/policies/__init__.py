"""Who decides what is sent when, side by side: ours, what others do, and what nobody can beat."""
