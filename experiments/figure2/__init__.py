"""The paper's figure 2: a student of one weight, whose mixture posterior is known in closed form."""
