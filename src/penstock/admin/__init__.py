"""The door for operators: what was used, what the limits are, who may do what. Admin keys only."""
