"""Estimators of scikit-learn as tensors."""
