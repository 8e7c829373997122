"""rlmctl, the daemon in the shell. Knows the wire's messages and nothing else of the daemon."""
