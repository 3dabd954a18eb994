"""Are weights of teachers that are sampled with the student as good as trust that is earned on labels?"""
