"""Model servers: one file a wire protocol, each turning a completion into deltas and one whole answer."""
