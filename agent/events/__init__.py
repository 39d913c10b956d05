"""What happens on this host, told to those who follow it."""
