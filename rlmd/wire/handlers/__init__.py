"""What each method of the protocol does: one file a noun, one function a method.

A handler maps the wire's messages to the parts below and back; it decides nothing else.
"""
