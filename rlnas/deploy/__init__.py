"""From a subnet to a model that others can use: writing it down, and measuring it once more."""

from __future__ import annotations

from rlnas.deploy.certificate import Certificate, Measured, Prediction
from rlnas.deploy.certify import certify
from rlnas.deploy.export import export

__all__ = ["Certificate", "Measured", "Prediction", "certify", "export"]
