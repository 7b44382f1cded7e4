"""Objectives and measurements of a policy's training."""
