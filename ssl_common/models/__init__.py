"""Networks and their named layers."""
