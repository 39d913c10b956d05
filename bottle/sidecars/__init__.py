"""What runs inside a bundle, beside a bottle: the standard library, and mitmproxy in the egress gate's glue alone."""
