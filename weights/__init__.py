"""Shipped weights, installed as `vfscreen._weights`; see MODEL_CARD.md."""
