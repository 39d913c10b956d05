"""ops-agent: the on-host half. It proves who asks, holds the host's own ceiling, runs the step and audits it."""
