"""Reinforcement-learning architecture search over BERT for a measured latency."""
