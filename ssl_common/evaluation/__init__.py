"""Features and the tasks that measure them."""
