"""The egress gate: `policy` and `decide` say what may leave, `known` finds secrets, `addon` and `serve` are glue."""
