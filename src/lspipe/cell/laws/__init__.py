"""Inelastic laws, one in each file."""
