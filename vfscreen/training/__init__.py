"""Training of both networks on simulated anatomy."""
