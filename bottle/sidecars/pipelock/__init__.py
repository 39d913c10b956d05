"""pipelock, the hop behind egress: a program of others, started on a configuration of ours."""
