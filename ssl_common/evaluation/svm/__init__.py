"""Linear SVMs on features, on all of the labels and on few."""
