"""The guts of ssl-bench: one room per stage of the experiment, in the order of the experiment."""
