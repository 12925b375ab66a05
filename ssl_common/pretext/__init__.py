"""The puzzles: one file reads like one section of the paper."""
