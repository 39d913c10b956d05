"""The operator's side of supervise: what was proposed, what a person decides, and how it is carried out."""
