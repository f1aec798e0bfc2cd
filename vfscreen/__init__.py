"""vfscreen: vertebral fractures in lung-screening CT, from an archive to tables."""

__version__ = "0.1.0"
