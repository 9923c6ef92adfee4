"""Controllers: they propose configs and learn from their rewards."""
