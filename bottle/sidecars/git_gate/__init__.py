"""The git gate: mirrors of declared repositories behind one unix socket; a push is scanned, then forwarded."""
