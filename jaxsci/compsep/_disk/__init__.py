"""Separations of skies that are larger than memory, from files to files."""
