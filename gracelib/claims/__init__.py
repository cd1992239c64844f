"""The paper's statements, judged on the tables of this world."""
