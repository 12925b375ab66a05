"""Where images and labels come from: lists of them, their pixels, and batches of these."""
