"""Everything about the package is declared in setup.cfg; this file lets setuptools find it."""

from setuptools import setup

setup()
