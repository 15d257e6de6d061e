"""Avatars for other programs. Here what command lines need to know before torch is loaded."""

LEVEL_NAMES = ("high", "small", "tiny")  # of precision.LEVELS; the first is the default
