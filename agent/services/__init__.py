"""Services on a host: what is declared of them, what is found, and what to do about the difference."""
