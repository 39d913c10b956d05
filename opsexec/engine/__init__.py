"""A container engine (Docker's API), as handlers ask it: where its socket is, bounded calls, streams, checked tars."""
