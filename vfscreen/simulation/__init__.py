"""Simulated patients with known truth: spine, anatomy, scanner."""
