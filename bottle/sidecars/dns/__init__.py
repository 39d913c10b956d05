"""The bottle's resolver: it knows the sidecars' names, asks nobody, and writes down what else was asked."""
