"""The MCP server: the daemon's contexts, REPL and pool as tools of Claude Code, OpenCode and their like, over stdio.

A process of its own, because the SDK takes 0.7 s and 60 MB to import. Its connection to the daemon says that what it
reads may leave the machine: private contexts do not exist there. Knows the wire's messages, not the daemon.
"""
