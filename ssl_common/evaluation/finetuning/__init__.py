"""Full fine-tuning: a trunk and a new head trained together for the classes of images."""
