"""Tables and plots of results, and pictures of the pretext tasks."""
