"""DeepLoc 2.0: ten compartments of a cell, two protein language models as teachers, a student of 34,000 parameters."""
