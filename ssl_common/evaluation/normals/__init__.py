"""Surface normals: their labels, a network that predicts them, and how far it is off."""
