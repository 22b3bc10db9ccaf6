"""What is claimed: results beside their predictions, an audit that recomputes them, scoring again with stored weights.

Torch-free, except for scoring again. A claim is one JSON file per (suite version, model, method setting); every number
in it can be recomputed from the prediction files that lie beside it.
"""
