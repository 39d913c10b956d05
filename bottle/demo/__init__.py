"""`bottle demo`: a scripted agent tries what an agent shouldn't, and what happened is asked of the outside."""
