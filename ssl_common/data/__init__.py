"""Images and labels: lists of them, their pixels, and batches."""
