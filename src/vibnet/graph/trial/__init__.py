"""Cuts, tried without storage first."""
