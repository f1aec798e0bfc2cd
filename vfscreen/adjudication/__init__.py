"""What readers say of the flagged studies, and how it comes back into tables of its own."""
