"""The on-host half of opsexec: empty until it arrives with the ops-agent daemon."""
