"""KD^3: a student made of an unlabelled pool, with the teacher's classifier."""
