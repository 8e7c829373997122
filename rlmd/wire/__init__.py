"""The socket: framing, connections, dispatch, and the messages of every method."""
