"""Leaderboards: claims beside their predictions, an audit that recomputes them, and the pages made from them.

Torch-free, except for re-scoring with stored weights. A claim is one JSON file per (suite version, model, method
setting); every number in it can be recomputed from the prediction files that lie beside it.
"""
