"""Evaluation of models as this daemon uses them: tasks of known truth, made by a seed or read from the published data
sets' own files, asked through the daemon's socket, scored exactly.

Speaks to the daemon as any client does (``rlmd.client``) and knows nothing of its inside. Importing the package loads
nothing.
"""
