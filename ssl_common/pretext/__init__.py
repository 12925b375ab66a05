"""The pretext tasks: each file reads like one section of the paper."""
