"""What a handler may ask of a machine: one small port, and the hosts behind it."""
